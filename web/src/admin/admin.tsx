import type { PageProps } from '../app/router';
import { Shell } from '../app/shell';
import { Empty } from '../ui/basic';
import { text } from '../text/en';

/** The administration: its navigation, and the page that the rest of the path names. */
export default function Admin(_: PageProps) {
  return (
    <Shell side={<nav class="nav" />} sideLabel={text.app.toAdmin} title={<h1>{text.app.toAdmin}</h1>}>
      <div class="content"><Empty icon="settings" title={text.pages.soon} /></div>
    </Shell>
  );
}
