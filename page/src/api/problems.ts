// Problems of a job that was checked, each with the key it is about. Pure.
import { ApiError } from "./errors";
import type { FieldProblem } from "./types";

const LINE = /^\s*([A-Za-z_][\w-]*(?:\.[\w-]+)*)(?: = .*?)?: (.+)$/;

/** Of `errors` where the service says them one by one, else of the lines of its sentence. */
export function problemsOf(error: unknown): FieldProblem[] {
  if (!(error instanceof ApiError)) return error ? [{ loc: "", msg: String((error as Error).message ?? error) }] : [];
  const { errors, detail } = error.problem;
  if (errors.length > 0) return errors.map((each) => ({ ...each, loc: each.loc.replace(/^body\.?/, "") }));
  const lines = detail.split("\n").filter((line) => line.trim() !== "");
  // The first line only names the file.
  const said = lines.length > 1 && /:\s*$/.test(lines[0]!) ? lines.slice(1) : lines;
  return said.map((line) => {
    const found = LINE.exec(line);
    const isKey = found !== null && (found[1]!.includes(".") || line.startsWith("  "));
    return isKey ? { loc: found[1]!, msg: line.trim() } : { loc: "", msg: line.trim() };
  });
}
