// Where the gateway is. Behind a proxy it may be below a path, which the <base> of the page names;
// every address in these pages is relative to it.

export const base = new URL(document.baseURI);

/** The absolute address of a path of the gateway, such as "api/me". */
export function url(path: string, query?: Query): string {
  const u = new URL(path.replace(/^\//, ''), base);
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value !== undefined && value !== '' && value !== false) u.searchParams.set(name, String(value));
  }
  return u.href;
}

/** Parameters of an address; those that are undefined, empty or false are left out. */
export type Query = Record<string, string | number | boolean | undefined>;

/** An id as a part of a path. */
export const part = encodeURIComponent;
