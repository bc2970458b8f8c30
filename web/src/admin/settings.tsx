export { Settings as default } from './gateway';
