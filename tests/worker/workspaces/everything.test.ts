/** Changes outside /workspace are restored after a stop, a kill, a rollback and in a fork. */
import { describe, expect, it } from "vitest";
import { runInActor, killContainer, owner, sh, until, untilStopped, stopWhenIdle } from "../support.ts";

const save = (sandbox: string) => runInActor(sandbox, (actor) => actor.saveToStop());

/** A Python and an npm package that need no index. */
const PACKAGES = `mkdir -p py/greet js && cd py
printf 'def hello(): return "from pip"\\n' >greet/__init__.py
printf 'from setuptools import setup\\nsetup(name="greet", version="1.0", packages=["greet"])\\n' >setup.py
cd ../js
printf '{"name":"greet-js","version":"1.0.0","bin":{"greet-js":"main.js"}}' >package.json
printf '#!/usr/bin/env node\\nconsole.log("from npm")\\n' >main.js
cd ..`;

/** The five kinds of installation, and the command that checks each. */
const KINDS = [
  {
    what: "a package of pip",
    install: `${PACKAGES}; pip install -q --no-build-isolation --no-index ./py 2>&1 | grep -v WARNING || true; rm -r py js`,
    look: `cd /; python3 -c 'import greet; print(greet.hello())'`,
    found: "from pip\n",
  },
  {
    what: "a package of npm",
    install: `${PACKAGES}; npm install -g --install-links ./js >/dev/null; rm -r py js`,
    look: "cd /; greet-js",
    found: "from npm\n",
  },
  {
    what: "a virtual environment in the home directory",
    install: `${PACKAGES}; python3 -m venv --without-pip ~/env; cp -r py/greet ~/env/lib/python3*/site-packages; rm -r py js`,
    look: `cd /; ~/env/bin/python -c 'import greet, sys; print(greet.hello(), sys.prefix)'`,
    found: "from pip /root/env\n",
  },
  {
    what: "a toolchain as rustup lays it out",
    install: `mkdir -p ~/.cargo/bin ~/.rustup/toolchains/stable/lib
for i in {1..300}; do echo "library $i" >~/.rustup/toolchains/stable/lib/$i; done
printf '#!/bin/sh\\ncat ~/.rustup/toolchains/stable/lib/* | sort | uniq | wc -l\\n' >~/.cargo/bin/rustup; chmod 755 ~/.cargo/bin/rustup
ln ~/.cargo/bin/rustup ~/.cargo/bin/rustc; ln -s rustc ~/.cargo/bin/cargo; echo 'PATH=~/.cargo/bin:$PATH' >~/.cargo/env`,
    look: ". ~/.cargo/env; cargo; stat -c '%h %a' ~/.cargo/bin/rustup",
    found: "300\n2 755\n",
  },
  {
    what: "settings and data in other directories",
    install: `mkdir -p ~/.config/tool /data/set /opt/own /etc/tool.d; echo secret >~/.netrc; chmod 600 ~/.netrc
echo set >~/.config/tool/conf; echo row >/data/set/rows; echo x >/opt/own/x; echo on >/etc/tool.d/conf
echo "alias ll='ls -l'" >>/etc/profile.d.own; useradd -m -s /bin/sh worker 2>/dev/null || true; chown 1234:1234 /data/set/rows 2>/dev/null || true
rm /opt/venv/lib64`,
    look: `cat ~/.netrc ~/.config/tool/conf /data/set/rows /opt/own/x /etc/tool.d/conf; stat -c %a ~/.netrc
getent passwd worker | cut -d: -f1,7; ls -d /opt/venv/lib64 2>/dev/null || echo none`,
    found: "secret\nset\nrow\nx\non\n600\nworker:/bin/sh\nnone\n",
  },
];

describe("installed software", () => {
  it(
    "is restored after a stop, a kill, a rollback and in a fork",
    // Installers are slow on a busy machine.
    { timeout: 180_000 },
    async () => {
      const sandbox = "installs";
      for (const { install } of KINDS) await sh(sandbox, install);
      const look = KINDS.map(({ look: one }) => `(${one})`).join("\n");
      const found = KINDS.map(({ found: one }) => one).join("");
      expect(await sh(sandbox, look)).toBe(found);
      const { checkpoint } = (await owner.call("checkpoint_sandbox", { sandbox })).structured;
      await until(() => save(sandbox));
      await stopWhenIdle(sandbox);
      await untilStopped(sandbox);
      expect(await sh(sandbox, look)).toBe(found);
      // Changes of the restored files are saved too.
      await sh(
        sandbox,
        "echo later >~/later; rm -rf ~/.cargo ~/.rustup ~/env ~/.config /data; rm -rf /opt/venv/lib/python*/site-packages/greet ~/.npm-global",
      );
      await until(() => save(sandbox));
      await killContainer(sandbox);
      expect(
        await sh(
          sandbox,
          "cat ~/later; ls -d ~/.cargo ~/.rustup ~/env ~/.config /data ~/.npm-global 2>/dev/null || true",
        ),
      ).toBe("later\n");
      await owner.call("restore_sandbox", { sandbox, checkpoint });
      expect(await sh(sandbox, `${look}; ls ~/later 2>/dev/null || true`)).toBe(found);
      const fork = `${sandbox}-fork`;
      await owner.call("restore_sandbox", { sandbox: fork, checkpoint });
      expect(await sh(fork, look)).toBe(found);
    },
  );
});

it("the files of the image are not saved, although a command has deleted the records of them before the first save", async () => {
  const sandbox = "records-deleted";
  await sh(sandbox, "rm /var/lib/sandbox-mcp/snapshot/{base.list,started}; echo mine >mine");
  expect((await owner.call("checkpoint_sandbox", { sandbox })).structured.files).toBe(1);
});
