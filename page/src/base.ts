// Where the page lies: the service writes <base href> from its root path, such as /rlhf/.
export const BASE = new URL(document.baseURI).pathname;
export const API = `${BASE}api/v1`;
