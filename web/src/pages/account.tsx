import type { PageProps } from '../app/router';
import { Empty } from '../ui/basic';
import { text } from '../text/en';

export default function Account(_: PageProps) {
  return <main class="center"><Empty icon="info" title={text.pages.soon}><a href="./">{text.app.toChat}</a></Empty></main>;
}
