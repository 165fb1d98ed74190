/** The call that installs a module which code asked for and did not find. */
import type { CodeError, Language } from "../container/kernels/protocol.ts";

/** Packages of PyPI that are not called as their modules are. */
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

/** A sentence for the one who ran the code, or undefined when the error is another. */
export function installHint(language: Language, { name, message }: CodeError): string | undefined {
  if (language === "python") {
    if (name !== "ModuleNotFoundError") return undefined;
    // Of a module inside a package the package is there.
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
