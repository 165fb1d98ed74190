/**
 * The languages of live kernels. A new language needs a name and a row here, a prelude in `container/kernel`, and its program in
 * the image and on this machine. The compiler reports the other places that need it.
 */
import { shownName } from "./shown.ts";

export const LANGUAGES = ["python", "javascript", "typescript"] as const;

export type Language = (typeof LANGUAGES)[number];

/** Python, the language in which models write most code. */
export const DEFAULT_LANGUAGE: Language = "python";

export const PROGRAM_LANGUAGES = ["python", "typescript"] as const satisfies readonly Language[];

export type ProgramLanguage = (typeof PROGRAM_LANGUAGES)[number];

/** The program of a kernel. Some languages share one. */
export type KernelProgram = "python" | "javascript";

interface Traits {
  title: string;
  program: KernelProgram;
  endings: readonly string[];
  /** The code that loads the prelude (`container/kernel`) from a directory into a new kernel. */
  load(directory: string): string;
  /** Code without effects. It does not change the last value either. */
  idle: string;
  /** Writes ASCII JSON as an argument of a call in source code. */
  argument(json: string): string;
  isInterruptible: boolean;
  /** Messages for a missing or replaced prelude file. */
  missingPrelude: RegExp;
  /** How to get the module that code failed to import, as a sentence; undefined for other errors. */
  importHint(error: { name: string; message: string; local?: string | null | undefined }): string | undefined;
}

/** PyPI packages that are named differently from their module. */
const PYPI: Record<string, string> = {
  attr: "attrs",
  bs4: "beautifulsoup4",
  Bio: "biopython",
  Crypto: "pycryptodome",
  cv2: "opencv-python-headless",
  dateutil: "python-dateutil",
  docx: "python-docx",
  dotenv: "python-dotenv",
  fitz: "pymupdf",
  git: "gitpython",
  jwt: "pyjwt",
  magic: "python-magic",
  mpl_toolkits: "matplotlib",
  OpenSSL: "pyopenssl",
  PIL: "pillow",
  pptx: "python-pptx",
  psycopg2: "psycopg2-binary",
  serial: "pyserial",
  skimage: "scikit-image",
  sklearn: "scikit-learn",
  yaml: "pyyaml",
};

export const TRAITS: Readonly<Record<Language, Traits>> = {
  python: {
    title: "Python",
    program: "python",
    endings: [".py"],
    load: (directory) => {
      const lines = [
        "import sys",
        `sys.path.insert(0, ${JSON.stringify(directory)})`,
        "try:",
        "    import sandbox_mcp_kernel",
        "finally:",
        "    sys.path.pop(0)",
        "sandbox_mcp_kernel.start()",
      ];
      return `exec(${JSON.stringify(lines.join("\n"))}, {})`;
    },
    idle: "pass",
    // A string literal for json.loads, because Python reads surrogate pairs in a literal as two characters.
    argument: (json) => JSON.stringify(json),
    isInterruptible: true,
    missingPrelude: /No module named|No such file|cannot import name|has no attribute 'start'/,
    importHint: ({ name, message, local }) => {
      if (name !== "ModuleNotFoundError") return undefined;
      // A missing submodule ('a.b') is not a missing package, so names with a dot do not match.
      const module = /^No module named '([A-Za-z_]\w{0,99})'/.exec(message)?.[1];
      if (module === undefined) return undefined;
      // In the package index, the name may belong to anybody.
      if (local)
        return `${module} is not on sys.path, but the sandbox has ${shownName(local)}: append its directory to sys.path, or run_command with pip install -e and the directory of its project.`;
      return `The package of ${module} is not installed: run_command with pip install ${PYPI[module] ?? module}. If it is code of your own, append its directory to sys.path.`;
    },
  },
  javascript: { ...nodeTraits("javascript"), title: "JavaScript", endings: [".js", ".mjs", ".cjs"] },
  typescript: { ...nodeTraits("typescript"), title: "TypeScript", endings: [".ts", ".mts"] },
};

/** The titles of the languages that still run if a program is missing. */
export const titlesWithout = (missing: KernelProgram): string[] =>
  LANGUAGES.flatMap((language) => (TRAITS[language].program === missing ? [] : [TRAITS[language].title]));

export const LANGUAGE_TITLES = LANGUAGES.map((language) => TRAITS[language].title)
  .join(", ")
  .replace(/, (?=[^,]*$)/, " or ");

function nodeTraits(language: Language): Omit<Traits, "title" | "endings"> {
  return {
    program: "javascript",
    load: (directory) =>
      `require(${JSON.stringify(`${directory}/node.cjs`)}).start(globalThis, ${JSON.stringify(language)})`,
    idle: "void 0",
    argument: (json) => json,
    isInterruptible: false,
    missingPrelude: /Cannot find module|No such file|ENOENT|start is not a function/,
    importHint: ({ message }) => {
      const found =
        /^Cannot find (?:module|package) '((?:@[\w.-]{1,99}\/)?[a-z\d][\w.-]{0,99})(?:\/[^']*)?'/i.exec(
          message,
        )?.[1];
      if (found === undefined) return undefined;
      return `The package ${found} is not installed: run_command with npm install ${found}.`;
    },
  };
}
