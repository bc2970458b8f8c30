import { Component, type ComponentType } from 'preact';

/** A component that is rendered again only when one of its properties is another one. */
export function memo<P extends object>(Inner: ComponentType<P>): ComponentType<P> {
  return class Memo extends Component<P> {
    override shouldComponentUpdate(next: P): boolean {
      return Object.keys({ ...next, ...this.props }).some((k) => next[k as keyof P] !== (this.props as P)[k as keyof P]);
    }
    override render() {
      const C = Inner;
      return <C {...(this.props as P)} />;
    }
  };
}
