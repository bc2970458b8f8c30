import type { ComponentType } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import { Spinner, Button } from '../ui/basic';
import { text } from '../text/en';

/** A component whose module is loaded when it is shown first. */
export function lazy<P extends object>(load: () => Promise<{ default: ComponentType<P> }>): ComponentType<P> {
  let loaded: ComponentType<P> | undefined;
  return function Lazy(props: P) {
    const [, show] = useState(0);
    const [failed, fail] = useState(false);
    useEffect(() => {
      if (loaded || failed) return;
      load().then((m) => { loaded = m.default; show(1); }, () => fail(true));
    }, [failed]);
    if (loaded) {
      const Loaded = loaded;
      return <Loaded {...props} />;
    }
    if (failed) { // the gateway was updated since this page was loaded, or is away
      return <div class="center" role="alert"><p>{text.errors.pageFailed}</p><Button onClick={() => location.reload()}>{text.app.reload}</Button></div>;
    }
    return <div class="center"><Spinner label={text.app.loading} /></div>;
  };
}
