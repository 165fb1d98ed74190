# The image of a production sandbox. Its tag is the version of @cloudflare/sandbox in package.json: a test holds them equal.
FROM docker.io/cloudflare/sandbox:0.12.10-python

# Claude Code, in the version that local/agents pins for the local platform. It has a layer of its own: what changes more often
# comes after it. npm 12 runs install scripts only of packages that are named.
RUN npm install --global --no-audit --no-fund --allow-scripts=@anthropic-ai/claude-code @anthropic-ai/claude-code@2.1.328 && \
    npm cache clean --force

# OpenCode, only where it is asked for: "image_vars": { "OPENCODE": "yes" } in wrangler.jsonc. It searches with ripgrep, and would
# load that from the internet in each sandbox.
ARG OPENCODE=no
RUN if [ "$OPENCODE" = yes ]; then \
      apt-get update && apt-get install -y --no-install-recommends ripgrep && rm -rf /var/lib/apt/lists/* && \
      npm install --global --no-audit --no-fund --allow-scripts=opencode-ai opencode-ai@1.18.33 && npm cache clean --force; \
    fi

# A commit needs a name. Whoever wants another sets it with `git config --global`, which goes before the system's.
RUN git config --system user.name Sandbox && git config --system user.email sandbox@localhost

# The file that container/environment names is the system's. What rebuilds that (a package, Java's key store) takes the
# platform's certificate in again, where there is one: until then the second link leads nowhere and is passed over.
RUN ln -s certs/ca-certificates.crt /etc/ssl/sandbox-mcp.pem && mkdir -p /usr/local/share/ca-certificates && \
    ln -s /etc/cloudflare/certs/cloudflare-containers-ca.crt /usr/local/share/ca-certificates/

# Ours: sandboxd, the file helpers and the kernels' preludes. Owned by root and read-only to everyone.
COPY --chmod=0555 container/ /opt/sandbox-mcp/

# Nothing can write there later, and a kernel would compile its prelude at each start.
RUN python3 -m compileall -q /opt/sandbox-mcp/kernel

RUN mkdir -p /var/lib/sandbox-mcp/runs

# A user's `pkill -f sandbox` must not end the base image's server: it is started by a link, whose name its process has.
RUN ln -s /container-server/sandbox /usr/local/bin/sbx-control

# What the image brings, so that saves hold only what differs. Let it be the last step that changes files.
RUN node /opt/sandbox-mcp/sandboxd/dist/sandboxd.cjs --write-base /opt/sandbox-mcp/base.list

# Keeps sandboxd and the base image's server running.
ENTRYPOINT ["/opt/sandbox-mcp/entrypoint.sh", "sbx-control"]
