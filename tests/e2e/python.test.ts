/** How `npm start` prepares the Python of sandboxes: with real interpreters and pip, and package indexes on loopback. */
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer, type Server as HTTPServer } from "node:http";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { describePython } from "../../local/engine/python.ts";
import { repository, type Server, type ServerOptions, startServer } from "../setup/server.ts";
import { callTool } from "../setup/tool.ts";
import { until } from "../setup/until.ts";
import { listen } from "../setup/listen.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

const NAMES = ["numpy", "pandas", "matplotlib", "ipython"];
const MODULES = ["numpy", "pandas", "matplotlib", "IPython"];

const cleanUp: (() => unknown)[] = [];
afterAll(async () => {
  for (const step of cleanUp.toReversed()) await step();
});

/** Prepares Python as a start of the server does. Prints the server's lines and the interpreters of sandboxes. */
const SET_UP = `
import { setUpPython } from ${JSON.stringify(join(repository, "cli/sandbox-python.ts"))};
const { python, complete } = await setUpPython(undefined, process.argv[1], console.log);
console.log("starts with", python);
await complete((executable) => console.log("continues with", executable));
`;

/**
 * Makes a virtual environment with only pip, and returns its interpreter. The environment links to the system's pip, because
 * installing or copying pip takes a second of processor time.
 */
function makeEnvironment(directory: string): string {
  execFileSync("/usr/bin/python3", ["-m", "venv", "--without-pip", directory]);
  const python = join(directory, "bin/python3");
  const print = (interpreter: string, program: string) =>
    execFileSync(interpreter, ["-c", program], { encoding: "utf8" }).trim();
  const packages = print(python, "import sysconfig; print(sysconfig.get_path('purelib'))");
  symlinkSync(print("/usr/bin/python3", "import pip; print(pip.__path__[0])"), join(packages, "pip"));
  writeFileSync(join(directory, "bin/pip"), `#!/bin/sh\nexec ${python} -m pip "$@"\n`, { mode: 0o755 });
  return python;
}

/** The parts of one test: a state directory, a bare environment, and an index of packages. */
function prepare() {
  const directory = temporaryDirectory();
  const python = makeEnvironment(join(directory, "venv"));

  const state = join(directory, "state");
  mkdirSync(state, { mode: 0o700 });
  /** The bare interpreter is first in PATH, and pip uses this index. */
  const environment = (index: string) => ({
    SANDBOX_MCP_PYTHON: undefined,
    PATH: `${join(directory, "venv/bin")}:${process.env.PATH}`,
    PIP_CONFIG_FILE: "/dev/null",
    PIP_INDEX_URL: index,
    PIP_EXTRA_INDEX_URL: undefined,
    PIP_FIND_LINKS: undefined,
  });

  /** Starts a server in that environment. */
  async function start(index: string, options: ServerOptions = {}): Promise<Server> {
    const flags = ["--state-dir", state, ...(options.flags ?? [])];
    const server = await startServer({ ...options, flags, env: environment(index) });
    cleanUp.push(() => server.stop());
    return server;
  }

  /** Starts only the part of a server that prepares Python. A whole server takes ten times as much processor time. */
  function startSetUp(index: string, within: readonly string[] = []) {
    const node = [process.execPath, "--input-type=module", "--eval", SET_UP, state];
    const [program = "", ...words] = [...within, ...node];
    const child = spawn(program, words, {
      env: { ...process.env, ...environment(index) },
      stdio: ["ignore", "pipe", "inherit"],
    });
    let printed = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => (printed += text));
    const ended = once(child, "close").then(() => printed);
    return { child, ended };
  }

  const environments = () => readdirSync(join(state, "python"));

  /** A wheel with one module, which names the index that it came from. */
  function wheel(name: string, module: string): Buffer {
    const file = join(directory, `${name}-1.0-py3-none-any.whl`);
    const program = `
import sys, zipfile
name, module = sys.argv[1:3]
with zipfile.ZipFile(sys.argv[3], "w") as wheel:
    wheel.writestr(f"{module}/__init__.py", "origin = 'the index of the test'")
    wheel.writestr(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\\nName: {name}\\nVersion: 1.0\\n")
    wheel.writestr(f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
    wheel.writestr(f"{name}-1.0.dist-info/RECORD", "")
`;
    execFileSync("/usr/bin/python3", ["-c", program, name, module, file]);
    return readFileSync(file);
  }

  /** An index with every package. It delays its last response until `release` is called. */
  async function startIndex(): Promise<{
    url: string;
    requests: string[];
    lastRequest: Promise<void>;
    release(): void;
  }> {
    const wheels = new Map(NAMES.map((name, index) => [name, wheel(name, MODULES[index] ?? name)]));
    const requests: string[] = [];
    const gate = Promise.withResolvers<void>();
    const lastRequest = Promise.withResolvers<void>();
    const server: HTTPServer = createServer(async ({ url = "" }, response) => {
      requests.push(url);
      const [, page] = /^\/simple\/([a-z]+)\/$/.exec(url) ?? [];
      const [, file] = /^\/([a-z]+)-1.0-py3-none-any\.whl$/.exec(url) ?? [];
      if (file === NAMES.at(-1)) {
        lastRequest.resolve();
        await gate.promise;
      }
      if (page !== undefined) {
        const name = `${page}-1.0-py3-none-any.whl`;
        response.setHeader("content-type", "text/html").end(`<a href="/${name}">${name}</a>`);
      } else if (file !== undefined) response.end(wheels.get(file));
      else response.writeHead(404).end();
    });
    const port = await listen(server);
    cleanUp.push(() => {
      server.closeAllConnections();
      server.close();
    });
    const url = `http://127.0.0.1:${port}/simple`;
    return { url, requests, lastRequest: lastRequest.promise, release: gate.resolve };
  }

  return { directory, python, start, startSetUp, environments, startIndex };
}

let sandboxes = 0;
/** The name of a new sandbox: a running sandbox keeps its interpreter. */
const newSandbox = () => `made-${++sandboxes}`;

/** The time for pip on a busy machine, milliseconds. */
const PIP_MS = 120_000;

const waitForOutput = (server: Server, line: RegExp) => until(() => line.test(server.stderr()), PIP_MS);

const nowhere = "http://127.0.0.1:1/simple";

// They run in parallel, because they mostly wait for servers and pip.
describe.concurrent("the first Python of PATH", () => {
  it("gets its packages once, in the background, also after an interruption", async () => {
    const { start, startSetUp, environments, startIndex } = prepare();
    const index = await startIndex();
    const interrupted = startSetUp(index.url);
    await index.lastRequest;
    interrupted.child.kill("SIGKILL");
    await interrupted.ended;
    expect(environments().filter((name) => !name.includes(".partial"))).toEqual([]);

    const first = await start(index.url);
    await waitForOutput(first, /^Python: installing numpy, pandas, matplotlib and ipython for .*venv\/bin/m);
    // The server accepts calls meanwhile.
    expect(await callTool(first.url, "run_code", { code: "6 * 7" })).toBe("result: 42");
    index.release();
    await waitForOutput(first, /from now on use \S+venv\S+, with numpy, pandas, matplotlib and ipython\.$/m);
    expect(environments()).toEqual([expect.not.stringContaining(".partial")]);
    const origins = {
      code: `import ${MODULES.slice(0, 3).join(", ")}; numpy.origin, pandas.origin, matplotlib.origin`,
    };
    const namesOfIndex = "('the index of the test', 'the index of the test', 'the index of the test')";
    let sandbox = "";
    const originsInNew = () =>
      callTool(first.url, "run_code", { ...origins, sandbox: (sandbox = newSandbox()) });
    await until(async () => (await originsInNew()).includes(namesOfIndex), PIP_MS);
    const touch = { sandbox, command: "touch /opt/sandbox-runtime/python/x" };
    expect(await callTool(first.url, "run_command", touch)).toMatch(/Read-only file system/);
    await first.stop();

    index.requests.length = 0;
    const second = await start(index.url);
    expect(await callTool(second.url, "run_code", origins)).toContain(namesOfIndex);
    expect(second.stderr()).not.toContain("Python");
    expect(index.requests).toEqual([]);
  });

  it("gets its packages from pip without running modules that may belong to a sandbox: in the working directory, PYTHONPATH or an editable package", () => {
    const { directory } = prepare();
    const project = join(directory, "project");
    mkdirSync(project);
    const mark = join(directory, "mark");
    for (const name of ["pip", "sitecustomize", "brotli"])
      writeFileSync(join(project, `${name}.py`), `open(${JSON.stringify(mark)}, "w").write("${name}")`);
    const [version = ""] = readdirSync(join(directory, "venv/lib"));
    const packages = join(directory, "venv/lib", version, "site-packages");
    writeFileSync(join(packages, "__editable__.project.pth"), `${project}\n`);
    const module = JSON.stringify(join(repository, "cli/sandbox-python.ts"));
    const state = JSON.stringify(join(directory, "state"));
    const program = `const { setUpPython } = await import(${module});
      await (await setUpPython(undefined, ${state}, () => undefined)).complete(() => undefined);`;
    const PATH = `${join(directory, "venv/bin")}:${process.env.PATH}`;
    const env = {
      ...process.env,
      PATH,
      PYTHONPATH: project,
      PIP_CONFIG_FILE: "/dev/null",
      PIP_INDEX_URL: nowhere,
    };
    execFileSync(process.execPath, ["--input-type=module", "-e", program], { cwd: project, env });
    // pip was started: it reached no index.
    expect(readdirSync(join(directory, "state/python"))).toContainEqual(expect.stringMatching(/\.failed$/));
    expect(existsSync(mark)).toBe(false);
  });

  it("is found if the paths of its modules contain `..`, as Python 3.10 behind a relative link", async () => {
    const python = join(temporaryDirectory(), "python3");
    const program = `import sys; sys.path[:] = [path + "/../" + path.split("/")[-1] for path in sys.path]; exec(sys.argv.pop(1))`;
    const words = `shift 3; exec /usr/bin/python3 -I -S -c '${program}' "$@"`;
    writeFileSync(python, `#!/bin/sh\n${words}\n`, { mode: 0o755 });
    expect(await describePython(python)).toMatchObject({ modules: expect.arrayContaining(["pip"]) });
  });

  it("is replaced by an interpreter with the packages if pip reaches no index, and stays replaced", async () => {
    const { startSetUp } = prepare();
    const printed = await startSetUp(nowhere).ended;
    const chosen =
      /Python: pip could not install the libraries \(.*numpy\)\. Sandboxes use (\/\S+), which has them; --python \S+venv\/bin\/python3 makes/;
    expect(printed).toMatch(chosen);
    const [, other = ""] = chosen.exec(printed) ?? [];
    expect(printed).toContain(`starts with ${other}\n`);
    expect(printed).not.toContain("continues with");
    execFileSync(other, ["-c", "import numpy, pandas, matplotlib, IPython"]);
    expect(await startSetUp(nowhere).ended).toBe(`starts with ${other}\n`);
  });
});

describe.concurrent("if no Python has the packages and pip reaches no index", () => {
  /** Hides every installed IPython, and replaces apt-get with this script. */
  function machine(directory: string, user: number, aptGet: string): string[] {
    const script = join(directory, "apt-get");
    writeFileSync(script, `#!/bin/sh\necho "$*" >>${directory}/calls\n${aptGet}\n`, { mode: 0o755 });
    const others = (process.env.PATH ?? "").split(":").map((entry) => join(entry, "python3"));
    const hidden = others.flatMap((file) =>
      existsSync(file) && !/^\/(usr\/)?bin\//.test(file) ? ["--ro-bind", "/dev/null", file] : [],
    );
    hidden.push("--tmpfs", "/usr/lib/python3/dist-packages/IPython", "--ro-bind", script, "/usr/bin/apt-get");
    // bwrap would drop all capabilities, but a server as root needs them to start sandboxes.
    const identity =
      user === 0 ? ["--cap-add", "ALL"] : ["--unshare-user", "--uid", String(user), "--gid", String(user)];
    return ["bwrap", "--die-with-parent", ...identity, "--dev-bind", "/", "/", ...hidden];
  }

  it("root installs Debian's packages, and sandboxes use the system's Python", async () => {
    const { directory, startSetUp } = prepare();
    expect(await startSetUp(nowhere, machine(directory, 0, "exit 0")).ended).toMatch(
      /Python: sandboxes that start from now on use \/usr\/bin\/python3, with numpy[^]*continues with \/usr\/bin\/python3\n/,
    );
    expect(readFileSync(join(directory, "calls"), "utf8")).toMatch(
      /install .*python3-pip python3-numpy python3-pandas python3-matplotlib python3-ipython$/m,
    );
  });

  it.each([
    ["root, but apt-get fails", 0, /\(E: no such package\)\. Install them for \S+python3, or choose/],
    [
      "another user",
      1000,
      /Install them for \S+python3, sudo apt-get update && sudo apt-get install \S.* python3-numpy/,
    ],
  ])("%s gets the notice once, and sandboxes keep their interpreter", async (_who, user, notice) => {
    const { directory, python, startSetUp } = prepare();
    // apt-get gets no PYTHONPATH, because a sandbox may write to that directory.
    const apt = 'echo "E: no such package$PYTHONPATH" >&2; exit 100';
    const within = ["/usr/bin/env", "PYTHONPATH=/project", ...machine(directory, user, apt)];
    const first = await startSetUp(nowhere, within).ended;
    expect(first).toMatch(/Python: sandboxes lack numpy/);
    expect(first).toMatch(notice);
    expect(first).not.toContain("continues with");
    expect(await startSetUp(nowhere, within).ended).toBe(`starts with ${python}\n`);
  });
});

describe.concurrent("--python", () => {
  it("uses the given Python unchanged, and pip can still install", async () => {
    const { directory, python, start, startIndex } = prepare();
    const index = await startIndex();
    index.release();
    execFileSync(python, ["-m", "pip", "install", "-q", "--no-index", "--find-links", directory, "pandas"]);
    const server = await start(index.url, { flags: ["--python", python] });
    const code = "import pandas; pandas.origin, pandas.__file__";
    expect(await callTool(server.url, "run_code", { code })).toContain(join(directory, "venv/lib"));
    // Somebody may have made the environment in a project.
    writeFileSync(join(directory, "venv/secret"), "of the project");
    const command = `cat ${join(directory, "venv/secret")}; ls ${join(directory, "venv")}`;
    expect(await callTool(server.url, "run_command", { command })).toMatch(/stdout: lib\n.*No such file/);
    const file = join(directory, "numpy-1.0-py3-none-any.whl");
    const content = readFileSync(file).toString("base64");
    await callTool(server.url, "write_file", {
      path: "numpy-1.0-py3-none-any.whl",
      content,
      encoding: "base64",
    });
    const pip =
      "pip install -q --no-index ./numpy-1.0-py3-none-any.whl && python3 -c 'import numpy; print(numpy.__file__)'";
    expect(await callTool(server.url, "run_command", { command: pip })).toContain("/opt/venv/lib/");
    expect(await callTool(server.url, "run_code", { code: "import numpy; numpy.origin" })).toContain(
      "the index",
    );
    expect(index.requests).toEqual([]);
    expect(server.stderr()).not.toContain("Python");
  });
});
