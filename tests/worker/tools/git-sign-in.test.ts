/** A person signs in to a git host on this server's page, and git in their sandboxes uses the token without seeing it. */
import { env } from "cloudflare:workers";
import { beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { Env } from "../../../src/shared/config.ts";
import type { Arrived } from "../../setup/private-secrets.ts";
import { Browser, panelBrowser, panelBrowserOfGitHub } from "../auth/support.ts";
import { ORIGIN, actorOf, evictActor, principal, resetAccountAt } from "../support.ts";
import { OPENS_URLS, app, appOf, callLegacy, elicitationIn, owner, variables } from "./elicited-pages.ts";

const PAGE = `${ORIGIN}/panel/git`;
const HOST = "smart.private.test";
// Before the sign-in, a sandbox sees the host's own certificate, which it does not trust.
const CLONE = `export GIT_SSL_NO_VERIFY=1; rm -rf c && git clone -q https://${HOST}/smart.git c && cat c/private.txt`;
const GIT_TOKEN = "good-Xq9Zr4Lw8Tb2Vn6K";

function ask(
  name: string,
  args: object,
  more: object = {},
  capabilities: object = OPENS_URLS,
  caller = owner,
) {
  return caller.sendModern("tools/call", { name, arguments: args, ...more }, {}, capabilities);
}

function send(
  browser: Browser,
  url: string,
  fields: Record<string, string>,
  headers: object = { origin: ORIGIN },
) {
  const type = { "content-type": "application/x-www-form-urlencoded" };
  const body = new URLSearchParams(fields).toString();
  return browser.open(url, {
    method: "POST",
    headers: { ...headers, ...type } as Record<string, string>,
    body,
  });
}

async function takeArrived(): Promise<Arrived[]> {
  return await (await fetch(`${env.PRIVATE_URL}smart`)).json<Arrived[]>();
}

async function sh(sandbox: string, command: string): Promise<string> {
  const { text } = await owner.call("run_command", { sandbox, command });
  expect(text).not.toContain(GIT_TOKEN);
  return text;
}

const signIn = (host = HOST, token = GIT_TOKEN, by = browser) => send(by, PAGE, { host, token });

let browser: Browser;

beforeAll(async () => {
  browser = await panelBrowser(app);
});

beforeEach(async () => {
  for (const host of [HOST, "smart-other.private.test"]) await send(browser, PAGE, { remove: "", host });
  await takeArrived();
});

describe("a command whose git lacks credentials", () => {
  it("makes the server ask the person to sign in, is not repeated by the server, and succeeds when the caller runs it again", async () => {
    const args = { sandbox: "git-ask", command: `echo once >>count; ${CLONE}` };
    const { url, message, state } = elicitationIn(await ask("run_command", args));
    expect(message).toContain(HOST);
    expect(url).toBe(`${PAGE}/${HOST}`);
    // The client calls again after its user opened the page, and that call waits for the answer.
    const repeated = ask("run_command", args, state);
    const page = await browser.open(url);
    expect(page.text).toContain(`value="${HOST}"`);
    const done = await signIn();
    expect(done.text).toContain("The token is saved");
    expect(done.text).not.toContain(GIT_TOKEN);
    const resultText = JSON.stringify((await repeated).result);
    expect(resultText).toContain("run it again");
    expect(await sh("git-ask", `cat count; ${CLONE}`)).toContain("once\nof the private repository");
    // The sandbox's next actor can use the token, and so can a new sandbox.
    await evictActor(await actorOf("git-ask"));
    expect(await sh("git", CLONE)).toContain("of the private repository");
    expect(
      await sh(
        "git",
        "cd c && git config user.email t@t && git config user.name t && git checkout -qb more && git commit -q --allow-empty -m more && git push -q origin more && git ls-remote origin",
      ),
    ).toContain("refs/heads/more");
  });

  it("reports that the person refused in the client or did not answer, and is not run again", async () => {
    const args = { sandbox: "git", command: `echo once >>count; ${CLONE}` };
    const { state } = elicitationIn(await ask("run_command", args));
    const declined = { ...state, inputResponses: { decision: { action: "decline" } } };
    expect(JSON.stringify((await ask("run_command", args, declined)).result)).toContain("did not sign in");
    const patient = owner.withVariables({ ...variables, MAX_WAIT_SECONDS: "1" });
    const later = await ask("run_command", args, state, undefined, patient);
    expect(JSON.stringify(later.result)).toContain("did not sign in");
    expect(await sh("git", "cat count")).toMatch(/once$/);
  });

  it("makes the server ask the person again if the host refuses the token", async () => {
    await signIn(HOST, "wrong-token-of-the-person");
    const args = { sandbox: "git", command: CLONE };
    const { state } = elicitationIn(await ask("run_command", args));
    await signIn();
    expect(JSON.stringify((await ask("run_command", args, state)).result)).toContain("run it again");
    expect(await sh("git", CLONE)).toContain("of the private repository");
  });

  it("has advice in its result if the client cannot ask the person, or nobody can sign in", async () => {
    expect(await sh("git", CLONE)).toContain(`sign in to this host at ${PAGE}`);
    const off = owner.withVariables({ ...variables, GIT_SIGN_IN: "off" });
    expect((await off.call("run_command", { sandbox: "git", command: CLONE })).text).not.toContain(PAGE);
    // The server asks nobody if the output names an invalid git host, or the command succeeds.
    for (const command of [
      "echo \"fatal: Authentication failed for 'https://10.0.0.1/x'\" >&2; false",
      "echo \"fatal: Authentication failed for 'http://smart.private.test/x'\" >&2; false",
      `echo "fatal: Authentication failed for 'https://${HOST}/x'" >&2`,
    ])
      expect((await ask("run_command", { sandbox: "git", command })).result).toMatchObject({
        resultType: "complete",
      });
  });

  it("has the advice although the account is reset before the result", async () => {
    resetAccountAt("gitSignedIn");
    expect(await sh("git", CLONE)).toContain(`sign in to this host at ${PAGE}`);
  });

  it("has the advice in each result that another call reads later", async () => {
    const sandbox = "git";
    await sh(sandbox, "true");
    const start = async (hint: string, command = CLONE, name = "run_command", field = "command") => {
      const started = await owner.call(name, { sandbox, [field]: command, wait_seconds: 0 });
      const { id } = started.structured;
      expect(started.text).not.toContain(hint);
      return { id };
    };
    const hint = `sign in to this host at ${PAGE}/${HOST}`;
    const slow = `sleep 1; ${CLONE}`;
    const run = await start(hint, slow);
    const ended = await owner.call("get_result", { ...run, wait_seconds: 30 });
    expect(ended.text).toContain(hint);
    expect(ended.structured.notice).toContain(hint);
    expect((await owner.call("get_result", { ...run, cursor: 0 })).text).toContain(hint);
    const code = `import subprocess; subprocess.run("""${slow}""", shell=True, check=True)`;
    const kernel = await start(hint, code, "run_code", "code");
    expect((await owner.call("get_result", { ...kernel, wait_seconds: 30 })).text).toContain(hint);
    // A client of the Tasks extension gets the run as a task.
    const tasks = { extensions: { "io.modelcontextprotocol/tasks": {} } };
    const { result: task } = await ask("run_command", { sandbox, command: slow }, {}, tasks);
    expect(task).toMatchObject({ resultType: "task" });
    const get = () => owner.sendModern("tasks/get", { taskId: task?.taskId }, {}, tasks);
    await expect.poll(async () => (await get()).result?.status, { timeout: 30_000 }).toBe("completed");
    expect(JSON.stringify((await get()).result)).toContain(hint);
    await signIn();
    expect((await owner.call("get_result", run)).text).toContain("run it again");
  });

  it("makes the server ask in the call that waits for its end, and not when the result is read again", async () => {
    const sandbox = "git";
    const begin = async () => {
      const command = `sleep 1; ${CLONE}`;
      const started = await owner.call("run_command", { sandbox, command, wait_seconds: 0 });
      return { id: started.structured.id as string, wait_seconds: 30 };
    };
    const run = await begin();
    const { state, url } = elicitationIn(await ask("get_result", run));
    expect(url).toBe(`${PAGE}/${HOST}`);
    expect(JSON.stringify((await ask("get_result", run)).result)).toContain("the user can sign in");
    const declined = { ...state, inputResponses: { decision: { action: "decline" } } };
    expect(JSON.stringify((await ask("get_result", run, declined)).result)).toContain("did not sign in");
    // The state names another run than the call.
    const other = await begin();
    await owner.call("get_result", other);
    expect(JSON.stringify((await ask("get_result", other, declined)).result)).toContain("can sign in");
    const third = await begin();
    expect(await callLegacy("get_result", third)).toContain("-32042");
    expect(await callLegacy("get_result", third)).toContain("the user can sign in");
    await signIn();
    expect(JSON.stringify((await ask("get_result", run, state)).result)).toContain("run it again");
  });
});

it("the server also asks if a task's clone needs the sign-in, and the task starts after it", async () => {
  const sandbox = "git-task";
  // The task runs this program as its agent, because the program has the agent's name.
  const agent = "mkdir -p /tmp/bin && printf '#!/bin/sh\\n' >/tmp/bin/opencode && chmod +x /tmp/bin/opencode";
  await sh(sandbox, agent);
  const settings = { GIT_SSL_NO_VERIFY: "1", PATH: "/tmp/bin:/usr/local/bin:/usr/bin:/bin" };
  await owner.call("configure_sandbox", { sandbox, env: settings });
  const repository = `https://${HOST}/smart.git`;
  const args = { task: "Read it.", agent: "opencode", repository, sandbox };
  const legacy = await callLegacy("execute_task", args);
  expect(legacy).toContain("-32042");
  expect(legacy).toContain(`${PAGE}/${HOST}`);
  // This client would repeat the whole call, so the server does not ask about a command.
  expect(await callLegacy("run_command", { sandbox, command: CLONE })).toContain("the user can sign in");
  const headers = { "content-type": "application/json" };
  const request = { method: "POST", headers, body: JSON.stringify(args) };
  const plain = await (await owner.http("/execute", request)).json<{ taskId: string }>();
  expect(plain).toMatchObject({ note: expect.stringContaining(`${PAGE}/${HOST}`) });
  const read = await (await owner.http(`/tasks/${plain.taskId}/result`)).json();
  expect(read).toMatchObject({ note: expect.stringContaining(`${PAGE}/${HOST}`) });
  const { state } = elicitationIn(await ask("execute_task", args));
  expect((await signIn()).status).toBe(200);
  await takeArrived();
  await ask("execute_task", args, state);
  expect((await takeArrived()).map(({ url: path }) => path)).toContain("/smart.git/git-upload-pack");
});

describe("a person's token for a git host", () => {
  it("is sent with git's requests to that host over HTTPS, and nowhere else", async () => {
    expect((await signIn()).text).toContain("The token is saved");
    await sh("git", CLONE);
    const credentials = `Basic ${btoa(`x-access-token:${GIT_TOKEN}`)}`;
    const cloned = await takeArrived();
    expect(cloned.length).toBeGreaterThan(0);
    for (const one of cloned) expect(one).toMatchObject({ host: HOST, authorization: credentials });
    const refs = "smart.git/info/refs?service=git-upload-pack";
    for (const request of [
      `curl -ksS https://${HOST}/echo`,
      `curl -ksS https://${HOST}/smart.git/info/refs`,
      `curl -ksS -X POST https://${HOST}/${refs}`,
      `curl -ksS -d '' -H 'content-type: application/json' https://${HOST}/api/git-upload-pack`,
      `curl -ksS https://${HOST}:8443/${refs}`,
      `curl -ksS http://${HOST}/${refs}`,
      `curl -ksS https://smart-other.private.test/${refs}`,
      `curl -ksS -H "host: ${HOST}" https://smart-other.private.test/${refs}`,
    ])
      await sh("git", `${request}; true`);
    // The request to port 80 does not arrive: the host listens only for HTTPS.
    const url = `/${refs}`;
    expect(await takeArrived()).toEqual([
      { host: HOST, url: "/echo", body: "" },
      { host: HOST, url: "/smart.git/info/refs", body: "" },
      { host: HOST, url, body: "" },
      { host: HOST, url: "/api/git-upload-pack", body: "" },
      { host: `${HOST}:8443`, url, body: "" },
      { host: "smart-other.private.test", url, body: "" },
      { host: HOST, url, body: "" },
    ]);
    // The client in the sandbox follows a redirect itself, and its second request has no token.
    await sh("git", `curl -ksSL "https://${HOST}/smart.git/away/info/refs?service=git-upload-pack"; true`);
    const [led, landed] = await takeArrived();
    expect(led?.authorization).toBe(credentials);
    expect(landed).toMatchObject({ host: "smart-other.private.test" });
    expect(landed?.authorization).toBeUndefined();
  });

  it("does not change compressed responses to other requests", async () => {
    await signIn();
    const header = `-H "authorization: of the program"`;
    const read = (more: string) => sh("git", `curl -sS --compressed ${header} https://${HOST}/${more}`);
    expect(await read("gzip")).toContain("gzip of the program");
    expect(await read("brotli")).toContain("br of the program");
    expect(await read("gzip -o body -w '%header{content-length} %{size_download}'")).toMatch(/ (\d+) \1$/);
  });

  it("is in no response of the host that a sandbox sees, and not in git's settings", async () => {
    await signIn();
    const head = await sh(
      "git",
      `curl -sSi --output - "https://${HOST}/smart.git/info/refs?service=git-upload-pack" | grep -a x-echo`,
    );
    expect(head).toContain("*".repeat(GIT_TOKEN.length));
    expect(await sh("git", `${CLONE}; cat c/.git/config; env; git config --list`)).toContain(
      "private repository",
    );
    const { text } = await owner.call("list_sandboxes", {});
    expect(text).not.toContain(GIT_TOKEN);
  });

  it("is not used for another principal", async () => {
    expect((await signIn()).text).toContain("The token is saved");
    const other = await principal("git-other", ["sandbox:exec"]);
    const { text } = await other
      .withVariables({ PUBLIC_ORIGIN: ORIGIN })
      .call("run_command", { command: CLONE });
    expect(text).not.toContain("of the private");
    // A principal without a session of the panel cannot sign in.
    expect(text).toContain("the operator can add the host to SECRETS");
    expect(text).not.toContain(PAGE);
    expect(await takeArrived()).toEqual([
      { host: HOST, url: "/smart.git/info/refs?service=git-upload-pack", body: "" },
    ]);
  });

  it("is listed without its value, and unusable at once after its removal", async () => {
    await signIn();
    await sh("git", CLONE);
    const page = await browser.open(PAGE);
    expect(page.text).toContain(`<strong>${HOST}</strong>`);
    expect(page.text).not.toContain(GIT_TOKEN);
    expect((await send(browser, PAGE, { remove: "", host: HOST })).text).toContain("Removed");
    expect((await browser.open(PAGE)).text).not.toContain(`<strong>${HOST}</strong>`);
    expect(await sh("git", CLONE)).toContain("could not read Username");
  });

  it("is confirmed with its host's name in ASCII, because the Unicode name can look like another host", async () => {
    const { text } = await signIn(" smàrt.Private.test ");
    expect(text).toContain("xn--smrt-1na.private.test");
    expect(text).not.toContain("smàrt");
    await send(browser, PAGE, { remove: "", host: "xn--smrt-1na.private.test" });
    expect((await browser.open(PAGE)).text).not.toContain("xn--");
  });

  it("is refused if it is not a token, or if sandboxes may not reach its host", async () => {
    for (const host of [
      "",
      "10.0.0.1",
      "localhost",
      "*.private.test",
      "anthropic.internal",
      "a.test/x",
      "<b>.test",
    ]) {
      const refused = await signIn(host);
      expect(refused.status).toBe(400);
      expect(refused.text).not.toContain("<b>.test");
    }
    for (const token of ["short", "with a space in the middle of it", "x".repeat(1001)])
      expect((await signIn(HOST, token)).status).toBe(400);
    const limited = await panelBrowser(
      appOf({ MAX_INTERNET: "allowlist", ALLOW_HOSTS: "smart-other.private.test" }),
    );
    expect((await signIn(HOST, GIT_TOKEN, limited)).status).toBe(400);
    expect((await signIn("smart-other.private.test", GIT_TOKEN, limited)).status).toBe(200);
  });

  it("is accepted only from this server's own page, and only from a person who may run code", async () => {
    const { url } = elicitationIn(await ask("run_command", { sandbox: "git", command: CLONE }));
    const fields = { host: HOST, token: GIT_TOKEN };
    for (const headers of [{ origin: "https://elsewhere.example" }, {}])
      expect((await send(browser, PAGE, fields, headers)).status).toBe(403);
    // The session of this browser may not run code.
    const other = await panelBrowserOfGitHub((more) => appOf(more as Partial<Env>));
    for (const refused of [await other.open(url), await send(other, PAGE, fields)])
      expect(refused.status).toBe(403);
    const stranger = new Browser(app);
    for (const at of [url, PAGE]) {
      const { pathname } = new URL(at);
      expect((await stranger.open(at)).response.headers.get("refresh")).toBe(`0; url=${pathname}?again`);
      const shown = await stranger.open(`${at}?again`);
      expect(shown.status).toBe(401);
      expect(shown.text).toContain(`/panel/sign-in?to=${encodeURIComponent(pathname)}`);
      await send(stranger, at, fields);
    }
    const own = await browser.open(PAGE);
    expect(own.text).not.toContain("<strong>");
    // A page of another site that opened this one cannot replace it while a person types a token.
    expect(own.response.headers.get("cross-origin-opener-policy")).toBe("same-origin");
  });
});
