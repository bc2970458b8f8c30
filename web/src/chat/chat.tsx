import type { PageProps } from '../app/router';
import { Shell } from '../app/shell';
import { text } from '../text/en';

export default function Chat(_: PageProps) {
  return <Shell side={<nav class="nav" />} sideLabel={text.chat.threads} title={<h1>{text.chat.title}</h1>}><div /></Shell>;
}
