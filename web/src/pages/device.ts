import { text } from '../text/en';

// In this order: most browsers say that they are others, too.
const browsers: [RegExp, string][] = [[/\bEdgA?\//, 'Edge'], [/\bOPR\//, 'Opera'], [/\bVivaldi\//, 'Vivaldi'], [/\b(Firefox|FxiOS)\//, 'Firefox'], [/\b(Chrome|CriOS|HeadlessChrome)\//, 'Chrome'], [/\bSafari\//, 'Safari'], [/^curl\//, 'curl']];
const systems: [RegExp, string][] = [[/\biPhone\b/, 'iPhone'], [/\biPad\b/, 'iPad'], [/\bAndroid\b/, 'Android'], [/\bWindows\b/, 'Windows'], [/\bCrOS\b/, 'ChromeOS'], [/\bMac OS X\b/, 'macOS'], [/\bLinux\b/, 'Linux']];

/** What a User-Agent header means, as far as anybody can tell. */
export function device(agent: string): string {
  const find = (list: [RegExp, string][]) => list.find(([x]) => x.test(agent))?.[1];
  const browser = find(browsers), system = find(systems);
  if (browser && system) return text.account.on(browser, system);
  return browser ?? system ?? (agent.slice(0, 60) || text.account.unknownDevice);
}
