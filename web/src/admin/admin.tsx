import { useMemo } from 'preact/hooks';
import type { PageProps } from '../app/router';
import { path } from '../app/router';
import { Shell } from '../app/shell';
import { lazy } from '../app/lazy';
import { Empty } from '../ui/basic';
import { text } from '../text/en';
import { sections, type Section } from './sections';

/** The administration: its navigation, and the page that the rest of the path names. */
export default function Admin({ params }: PageProps) {
  const [name = '', ...rest] = (params.page ?? '').split('/').filter(Boolean);
  const all = sections.flatMap((g) => g.sections);
  const section = all.find((s) => s.name === name) ?? (name === '' ? all[0] : undefined);
  return (
    <Shell side={<Navigation at={section} />} sideLabel={text.app.toAdmin} title={<h1>{section?.title ?? text.app.toAdmin}</h1>}>
      <div class="content wide">
        {section ? <Page key={section.name} section={section} id={rest.map(decodeURIComponent).join('/')} /> : <Empty icon="settings" title={text.errors.noPage} />}
      </div>
    </Shell>
  );
}

function Page({ section, id }: { section: Section; id: string }) {
  const Shown = useMemo(() => lazy(section.load), [section]);
  return <Shown id={id} />;
}

function Navigation({ at }: { at: Section | undefined }) {
  void path.value; // so that the mark follows the address
  return (
    <nav class="nav" aria-label={text.app.toAdmin}>
      {sections.map((g) => g.sections.length > 0 && (
        <section key={g.title}>
          <h2>{g.title}</h2>
          <ul>{g.sections.map((s) => (
            <li key={s.name}><a href={s.name === '' ? 'admin/' : `admin/${s.name}`} aria-current={s === at ? 'page' : undefined}>{s.title}</a></li>
          ))}</ul>
        </section>
      ))}
    </nav>
  );
}
