// Where in a job file a dotted key stands, so that a problem can be shown at its line. No parser: the service checks.

/** 1-based line of `train.num_steps` or `rewards.0.weight`; of its table where the key is not written; else null. */
export function lineOf(source: string, loc: string): number | null {
  const wanted = loc.split(".");
  let table: string[] = [];
  let best: { depth: number; line: number } | null = null;
  const counts = new Map<string, number>();
  for (const [index, raw] of source.split("\n").entries()) {
    const text = raw.trim();
    const header = /^\[{1,2}([^\]]+)\]{1,2}/.exec(text);
    let path: string[];
    if (header) {
      table = header[1]!.split(".").map((part) => part.trim());
      if (text.startsWith("[[")) {
        const name = table.join(".");
        counts.set(name, (counts.get(name) ?? -1) + 1);
        table = [...table, String(counts.get(name))];
      }
      path = table;
    } else {
      const key = /^([A-Za-z0-9_."-]+)\s*=/.exec(text);
      if (!key) continue;
      path = [...table, ...key[1]!.replaceAll('"', "").split(".")];
    }
    const isPrefix = path.length <= wanted.length && path.every((part, at) => part === wanted[at]);
    if (isPrefix && path.length > (best?.depth ?? 0)) best = { depth: path.length, line: index + 1 };
  }
  return best?.line ?? null;
}

/** A value as a job file writes it, for an override `key=value`. */
export function written(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(written).join(", ")}]`;
  if (value !== null && typeof value === "object") {
    return `{ ${Object.entries(value).map(([key, each]) => `${key} = ${written(each)}`).join(", ")} }`;
  }
  return value === null || value === undefined ? "none" : JSON.stringify(value);
}

/** A tree of settings as dotted keys, in the order of the file. */
export function flat(tree: Record<string, unknown>, prefix = ""): [string, unknown][] {
  return Object.entries(tree).flatMap(([key, value]): [string, unknown][] => {
    const path = prefix ? `${prefix}.${key}` : key;
    if (Array.isArray(value) && value.some((each) => each !== null && typeof each === "object")) {
      return flat(Object.fromEntries(value.map((each, index) => [String(index), each])), path);
    }
    const isTable = value !== null && typeof value === "object" && !Array.isArray(value) && Object.keys(value).length > 0;
    return isTable ? flat(value as Record<string, unknown>, path) : [[path, value]];
  });
}
