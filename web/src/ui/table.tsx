import type { ComponentChildren } from 'preact';
import { useState } from 'preact/hooks';
import { Button, Empty, Input, Skeleton } from './basic';
import { Icon } from './icon';
import { text } from '../text/en';

export interface Column<T> {
  id: string;
  title: string;
  /** What a cell shows. */
  cell: (row: T) => ComponentChildren;
  /** What the column is sorted by; without it, it is not sortable. */
  sort?: (row: T) => string | number;
  numeric?: boolean;
}

interface Props<T> {
  caption: string;
  columns: Column<T>[];
  rows: T[] | undefined; // undefined while they are being loaded
  rowKey: (row: T) => string;
  /** The words of a row that can be searched for; without it there is no search field. */
  words?: (row: T) => string;
  empty: string;
  pageSize?: number;
  /** Controls beside the search field. */
  tools?: ComponentChildren;
  sortBy?: string;
  descending?: boolean;
}

/** A table that can be searched, sorted by its columns, and turned like pages. */
export function Table<T>({ caption, columns, rows, rowKey, words, empty, pageSize = 25, tools, sortBy, descending }: Props<T>) {
  const [query, setQuery] = useState('');
  const [sort, setSort] = useState({ by: sortBy ?? '', down: !!descending });
  const [page, setPage] = useState(0);
  const wanted = query.toLowerCase();
  let list = (rows ?? []).filter((r) => !wanted || words?.(r).toLowerCase().includes(wanted));
  const column = columns.find((c) => c.id === sort.by);
  if (column?.sort) {
    const of = column.sort;
    list = [...list].sort((a, b) => { const x = of(a), y = of(b); return (x < y ? -1 : x > y ? 1 : 0) * (sort.down ? -1 : 1); });
  }
  const pages = Math.max(1, Math.ceil(list.length / pageSize)), at = Math.min(page, pages - 1);
  const shown = list.slice(at * pageSize, (at + 1) * pageSize);
  return (
    <div class="table-box">
      {(words || tools) && (
        <div class="table-tools">
          {words && <Input type="search" label={text.table.search} hideLabel placeholder={text.table.search} value={query} onInput={(e) => { setQuery(e.currentTarget.value); setPage(0); }} />}
          {tools}
        </div>
      )}
      {!rows ? <Skeleton lines={5} /> : list.length === 0 ? <Empty icon="list" title={wanted ? text.table.nothingFound : empty} /> : (
        <div class="table-scroll" role="region" aria-label={caption} tabIndex={0}>
          <table>
            <caption class="hidden">{caption}</caption>
            <thead>
              <tr>
                {columns.map((c) => (
                  <th key={c.id} scope="col" class={c.numeric ? 'numeric' : ''} aria-sort={sort.by === c.id ? (sort.down ? 'descending' : 'ascending') : undefined}>
                    {c.sort ? (
                      <button type="button" onClick={() => setSort({ by: c.id, down: sort.by === c.id && !sort.down })}>
                        {c.title}{sort.by === c.id && <Icon name={sort.down ? 'down' : 'up'} />}
                      </button>
                    ) : c.title || <span class="hidden">{text.table.actions}</span>}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {shown.map((r) => <tr key={rowKey(r)}>{columns.map((c) => <td key={c.id} data-title={c.title} class={c.numeric ? 'numeric' : ''}>{c.cell(r)}</td>)}</tr>)}
            </tbody>
          </table>
        </div>
      )}
      {pages > 1 && (
        <nav class="pager" aria-label={text.table.pages}>
          <span>{text.table.range(at * pageSize + 1, at * pageSize + shown.length, list.length)}</span>
          <Button disabled={at === 0} onClick={() => setPage(at - 1)}>{text.table.previous}</Button>
          <Button disabled={at === pages - 1} onClick={() => setPage(at + 1)}>{text.table.next}</Button>
        </nav>
      )}
    </div>
  );
}
