import{a}from"./chunk-74LBTWPS.js";import"./chunk-ENPJWUW6.js";import"./chunk-V6GHQ7TH.js";import"./chunk-ABRIMWFX.js";import"./chunk-BTPX3FJT.js";import"./chunk-SQE76S5B.js";export{a as default};
