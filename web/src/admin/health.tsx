export { Health as default } from './gateway';
