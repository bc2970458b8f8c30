import{a}from"./chunk-33SW2TGC.js";import"./chunk-6DL6MBRD.js";import"./chunk-VG6DYJTG.js";import"./chunk-KNRTPKGP.js";import"./chunk-SQE76S5B.js";export{a as default};
