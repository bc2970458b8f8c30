import{a}from"./chunk-DAALV5H7.js";import"./chunk-2LT2NRXL.js";import"./chunk-RH3C3YAN.js";import"./chunk-XMNRDZC3.js";import"./chunk-DJGI4CX6.js";import"./chunk-SQE76S5B.js";export{a as default};
