// Before the first paint, so that a page kept dark does not flash white.
try {
  const kept = localStorage.getItem("theme");
  if (kept) document.documentElement.dataset.theme = kept;
} catch {
  // Storage is forbidden: the system's choice holds.
}
