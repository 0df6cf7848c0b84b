// What one text has that another has not, word by word. Pure.
export interface Piece {
  text: string;
  kind: "same" | "new" | "gone";
}

/** More words than this are not compared: the table would have their product of cells. */
export const MAX_WORDS = 1500;

/** From `before` to `after`; null where one is too long. */
export function difference(before: string, after: string): Piece[] | null {
  const [old, now] = [wordsOf(before), wordsOf(after)];
  if (old.length > MAX_WORDS || now.length > MAX_WORDS) return null;
  const common = longest(old, now);
  const pieces: Piece[] = [];
  const add = (kind: Piece["kind"], text: string) => {
    const last = pieces.at(-1);
    if (last?.kind === kind) last.text += text;
    else pieces.push({ kind, text });
  };
  let [at, to] = [0, 0];
  while (at < old.length || to < now.length) {
    if (at < old.length && to < now.length && old[at] === now[to]) {
      add("same", now[to]!);
      [at, to] = [at + 1, to + 1];
    } else if (to >= now.length || (at < old.length && common[at + 1]![to]! >= common[at]![to + 1]!)) add("gone", old[at++]!);
    else add("new", now[to++]!);
  }
  return pieces;
}

/** Words with the space before them, so that joined they are the text again. */
const wordsOf = (text: string) => text.match(/\s*\S+|\s+$/g) ?? [];

/** Of every pair of ends, how many words they have in common, in order. */
function longest(old: readonly string[], now: readonly string[]): Uint16Array[] {
  const table = Array.from({ length: old.length + 1 }, () => new Uint16Array(now.length + 1));
  for (let at = old.length - 1; at >= 0; at -= 1) {
    for (let to = now.length - 1; to >= 0; to -= 1) {
      table[at]![to] = old[at] === now[to] ? table[at + 1]![to + 1]! + 1 : Math.max(table[at + 1]![to]!, table[at]![to + 1]!);
    }
  }
  return table;
}
