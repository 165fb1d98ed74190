# The image of a production sandbox. Its tag is the version of @cloudflare/sandbox in package.json: a test compares them.
FROM docker.io/cloudflare/sandbox:0.12.10-python

# Claude Code, in the version that local/agents pins for the local platform. This layer comes before the layers that change more
# often. npm 12 runs a package's install scripts only if --allow-scripts names the package.
RUN npm install --global --no-audit --no-fund --allow-scripts=@anthropic-ai/claude-code @anthropic-ai/claude-code@2.1.328 && \
    npm cache clean --force

# OpenCode, only with "image_vars": { "OPENCODE": "yes" } in wrangler.jsonc. Without ripgrep in the image, OpenCode downloads it
# in each sandbox.
ARG OPENCODE=no
RUN if [ "$OPENCODE" = yes ]; then \
      apt-get update && apt-get install -y --no-install-recommends ripgrep && rm -rf /var/lib/apt/lists/* && \
      npm install --global --no-audit --no-fund --allow-scripts=opencode-ai opencode-ai@1.18.33 && npm cache clean --force; \
    fi

# Plots have Chinese, Japanese, Korean, Hindi and emoji. These fonts take 9 MB; Noto's take ten times as much.
RUN apt-get update && \
    apt-get install -y --no-install-recommends fontconfig fonts-wqy-microhei fonts-lohit-deva fonts-symbola && \
    rm -rf /var/lib/apt/lists/*

# A commit needs a name. `git config --global` can set another name, because it takes precedence over this system configuration.
# Archives can have repositories of other owners.
RUN git config --system user.name Sandbox && git config --system user.email sandbox@localhost && \
    git config --system safe.directory '*'

# container/environment names the first link, which leads to the system's certificate file. A program that rebuilds that file (a
# package, or Java's key store) finds the platform's certificate by the second link. If the platform adds no certificate, the second
# link is broken, and such programs ignore it.
RUN ln -s certs/ca-certificates.crt /etc/ssl/sandbox-mcp.pem && mkdir -p /usr/local/share/ca-certificates && \
    ln -s /etc/cloudflare/certs/cloudflare-containers-ca.crt /usr/local/share/ca-certificates/

# How many kernels the base image's server starts before code needs them. The base image starts three for each language, which take
# more processor time and memory than the rest of a sandbox's start. A TypeScript kernel starts in less than a second.
ENV PYTHON_POOL_MIN_SIZE=1 JAVASCRIPT_POOL_MIN_SIZE=1 TYPESCRIPT_POOL_MIN_SIZE=0

# Our programs: sandboxd, its helpers and the kernels' preludes. Root owns them, and no other user can write to them.
COPY --chmod=0555 container/ /opt/sandbox-mcp/

# Compiled here, so that the first kernel of a sandbox does not have to compile its prelude.
RUN python3 -m compileall -q /opt/sandbox-mcp/kernel

RUN mkdir -p /var/lib/sandbox-mcp/runs

# IPython makes its directory at its first start, and cannot start without it on a full disk.
RUN python3 -c "from IPython.core.interactiveshell import InteractiveShell; InteractiveShell.instance()"

# A user's `pkill -f sandbox` must not end the base image's server, so it is started through a link with another name.
RUN ln -s /container-server/sandbox /usr/local/bin/sbx-control

# Writes the list of the image's files, so that saves contain only the differences from the image. This must be the last step that
# changes files.
RUN node /opt/sandbox-mcp/sandboxd/dist/sandboxd.cjs --write-base /opt/sandbox-mcp/base.list

# Keeps sandboxd and the base image's server running.
ENTRYPOINT ["/opt/sandbox-mcp/entrypoint.sh", "sbx-control"]
