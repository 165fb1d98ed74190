# The image of a production sandbox. Its tag is the version of @cloudflare/sandbox in package.json: a test holds them equal.
FROM docker.io/cloudflare/sandbox:0.12.10-python

# tini takes in orphans, which the image's server never asks for: their ends would not show to who waits for them by number.
# OpenCode searches with ripgrep, and would load it from the internet in each sandbox.
RUN apt-get update && apt-get install -y --no-install-recommends tini ripgrep && rm -rf /var/lib/apt/lists/*

# The coding agents of execute_task: Claude Code in the version that package.json pins for the local platform, and OpenCode.
RUN npm install --global --no-audit --no-fund @anthropic-ai/claude-code@2.1.328 opencode-ai@1.18.33 && npm cache clean --force

# A commit needs a name. Whoever wants another sets it with `git config --global`, which goes before the system's.
RUN git config --system user.name Sandbox && git config --system user.email sandbox@localhost

# The file that container/environment names is the system's. What rebuilds that (a package, Java's key store) takes the
# platform's certificate in again, where there is one: until then the second link leads nowhere and is passed over.
RUN ln -s certs/ca-certificates.crt /etc/ssl/sandbox-mcp.pem && mkdir -p /usr/local/share/ca-certificates && \
    ln -s /etc/cloudflare/certs/cloudflare-containers-ca.crt /usr/local/share/ca-certificates/

# Ours: sandboxd, the file helpers and the kernels' preludes. Owned by root and read-only to everyone.
COPY --chmod=0555 container/ /opt/sandbox-mcp/

RUN mkdir -p /var/lib/sandbox-mcp/runs

# Behind ours, the entrypoint of the base image.
ENTRYPOINT ["/usr/bin/tini", "--", "/opt/sandbox-mcp/entrypoint.sh", "/container-server/sandbox"]
