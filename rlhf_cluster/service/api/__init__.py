"""One router a resource. Handlers are plain functions, run in threads; what they raise becomes a problem."""
