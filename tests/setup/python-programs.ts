/** Lines of Python programs that use resources of the kernel. */

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

/** Linux keeps 0.7 KB for each of these names. */
export const lookUpInVain = (names: number) => [
  "import os",
  "unique = os.urandom(8).hex()",
  `for number in range(${names}):`,
  "  try: os.stat(f'/usr/bin/{unique}.{number:0220}')",
  "  except OSError: pass",
];
