// The two ways in which a request fails.
import type { Problem } from "./types";

/** The service answered, and the answer was no. */
export class ApiError extends Error {
  constructor(readonly problem: Problem) {
    super(problem.detail);
  }
  get status(): number {
    return this.problem.status;
  }
}

/** The service did not answer, or something before it did. It is worth trying again. */
export class Away extends Error {}
