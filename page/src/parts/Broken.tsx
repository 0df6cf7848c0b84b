// What is shown where a view could not be drawn: the rest of the page goes on.
import { Component, type ReactNode } from "react";
import { Button, Empty } from "./parts";

/** `at` is where one is: elsewhere it tries again. */
export class Broken extends Component<{ at: string; children: ReactNode }, { error: Error | null; at: string }> {
  override state = { error: null as Error | null, at: this.props.at };

  static getDerivedStateFromError(error: Error) {
    return { error };
  }

  static getDerivedStateFromProps(props: { at: string }, state: { at: string }) {
    return props.at === state.at ? null : { error: null, at: props.at };
  }

  override render() {
    const { error } = this.state;
    if (!error) return this.props.children;
    return (
      <Empty title="This view could not be drawn" action={<Button onClick={() => location.reload()}>Load the page again</Button>}>
        Jobs are not touched by it. What went wrong: {error.message}
      </Empty>
    );
  }
}
