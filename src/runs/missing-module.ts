/** Suggests the call that installs a module which code failed to import. */
import type { CodeError, Language } from "../container/kernels/protocol.ts";

/** Packages of PyPI, by module, whose name is not the module's. */
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

/** A sentence for the caller, or undefined when the error is another one. */
export function installHint(language: Language, { name, message }: CodeError): string | undefined {
  if (language === "python") {
    if (name !== "ModuleNotFoundError") return undefined;
    // A missing submodule ('a.b') is no missing package, so names with a dot do not match.
    const module = /^No module named '([A-Za-z_]\w{0,99})'/.exec(message)?.[1];
    if (module === undefined) return undefined;
    return `The package of ${module} is not installed: run_command with pip install ${PYPI[module] ?? module}.`;
  }
  const found =
    /^Cannot find (?:module|package) '((?:@[\w.-]{1,99}\/)?[a-z\d][\w.-]{0,99})(?:\/[^']*)?'/i.exec(
      message,
    )?.[1];
  if (found === undefined) return undefined;
  return `The package ${found} is not installed: run_command with npm install ${found}.`;
}
