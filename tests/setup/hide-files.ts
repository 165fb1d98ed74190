/** Lines of Python programs that hide their files from a count. */

/** Ends a process's first thread, so that the process seems to have no files. */
export const END_FIRST_THREAD = [
  "threading.Thread(target=lambda: time.sleep(600)).start()",
  "ctypes.CDLL(None).pthread_exit(None)",
];

/** A process that ends while its files are counted seems to have none. */
export const passOn = (pauseSeconds = 0.005) => [
  "while True:",
  "  if os.fork(): os._exit(0)",
  `  time.sleep(${pauseSeconds})`,
];
