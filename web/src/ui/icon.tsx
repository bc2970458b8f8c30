// Icons are drawn here: no font, no sprite, nothing to load.

const paths = {
  menu: 'M4 7h16M4 12h16M4 17h16',
  plus: 'M12 5v14M5 12h14',
  search: 'M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14ZM20 20l-4-4',
  close: 'M6 6l12 12M18 6L6 18',
  check: 'M5 12.5l4.5 4.5L19 7.5',
  blank: '',
  more: 'M5 12h.01M12 12h.01M19 12h.01',
  chevron: 'M9 6l6 6-6 6',
  down: 'M6 9l6 6 6-6',
  up: 'M6 15l6-6 6 6',
  send: 'M12 19V5M6 11l6-6 6 6',
  stop: 'M7 7h10v10H7z',
  clip: 'M20 11.5l-8 8a5 5 0 0 1-7-7l8.5-8.5a3.3 3.3 0 0 1 4.7 4.7L9.700 17.200a1.700 1.700 0 0 1-2.400-2.400L15 7',
  copy: 'M9 9h11v11H9zM5 15H4V4h11v1',
  edit: 'M4 20h4L19 9l-4-4L4 16zM13 7l4 4',
  trash: 'M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13M10 11v5M14 11v5',
  archive: 'M3 5h18v4H3zM5 9v10h14V9M10 13h4',
  download: 'M12 4v11M7 11l5 5 5-5M5 20h14',
  retry: 'M20 11a8 8 0 1 0-.700 4.500M20 5v6h-6',
  user: 'M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8ZM4 21c1-4.500 4-6 8-6s7 1.500 8 6',
  key: 'M15 9a4 4 0 1 1-4 4M11 13l-7 7M6 18l2 2M15 9a4 4 0 1 1 0 .01',
  exit: 'M10 4H5v16h5M15 8l4 4-4 4M19 12H9',
  settings: 'M12 15a3 3 0 1 0 0-6 3 3 0 0 0 0 6ZM12 3v3M12 18v3M3 12h3M18 12h3M5.600 5.600l2.100 2.100M16.300 16.300l2.100 2.100M18.400 5.600l-2.100 2.100M7.700 16.300l-2.100 2.100',
  chat: 'M4 5h16v11H9l-5 4z',
  tool: 'M14.500 6.500a4 4 0 0 0 5 5L10 21l-4-4 8.500-9.500M14.500 6.500L17 4a4 4 0 0 0-2.500 2.500',
  think: 'M12 4a6 6 0 0 0-3.500 10.900V18h7v-3.100A6 6 0 0 0 12 4ZM10 21h4',
  warning: 'M12 4L2.500 20h19zM12 10v4M12 17h.01',
  info: 'M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18ZM12 11v5M12 8h.01',
  question: 'M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18ZM9.500 9.500a2.500 2.500 0 1 1 3.500 2.300c-.700.300-1 .900-1 1.700M12 17h.01',
  shield: 'M12 3l8 3v5c0 5-3.500 8.500-8 10-4.500-1.500-8-5-8-10V6z',
  clock: 'M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18ZM12 7v5l3 2',
  file: 'M6 3h8l4 4v14H6zM14 3v4h4',
  bot: 'M5 9h14v10H5zM12 9V5M9 13v2M15 13v2M12 5h.01M2 13v3M22 13v3',
  home: 'M4 11l8-7 8 7v9h-5v-6H9v6H4z',
  chart: 'M4 4v16h16M8 16v-4M12 16V8M16 16v-6',
  list: 'M9 6h11M9 12h11M9 18h11M4 6h.01M4 12h.01M4 18h.01',
  link: 'M10 14a4 4 0 0 0 6 0l3-3a4 4 0 0 0-6-6l-1 1M14 10a4 4 0 0 0-6 0l-3 3a4 4 0 0 0 6 6l1-1',
  lock: 'M6 11h12v9H6zM8.500 11V8a3.500 3.500 0 0 1 7 0v3',
  mail: 'M3 6h18v12H3zM3 7l9 7 9-7',
  command: 'M9 9h6v6H9zM9 9V6.500A2.500 2.500 0 1 0 6.500 9H9ZM15 9h2.500A2.500 2.500 0 1 0 15 6.500V9ZM15 15v2.500a2.500 2.500 0 1 0 2.500-2.500H15ZM9 15H6.500A2.500 2.500 0 1 0 9 17.500V15Z',
} as const;

export type IconName = keyof typeof paths;

/** A drawing that says nothing by itself: whatever has it says it in words, too. */
export function Icon({ name, class: cls }: { name: IconName; class?: string }) {
  return (
    <svg class={`icon ${cls ?? ''}`} viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      <path d={paths[name]} />
    </svg>
  );
}
