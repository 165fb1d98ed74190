/** The paths of OAuth and of the panel, which signs in by it. The metadata of a resource is at `METADATA_PATH` followed by the path of the resource. */
export const AUTHORIZE_PATH = "/authorize";
/** Issues tokens and revokes them. */
export const TOKEN_PATH = "/oauth/token";
export const REGISTRATION_PATH = "/oauth/register";
export const METADATA_PATH = "/.well-known/oauth-protected-resource";
export const SERVER_METADATA_PATH = "/.well-known/oauth-authorization-server";

/** The panel's page; what it is made of lies below `PANEL_ASSETS_PATH`. */
export const PANEL_PATH = "/panel";
export const PANEL_ASSETS_PATH = "/panel/assets";
export const PANEL_SIGN_IN_PATH = "/panel/sign-in";
export const PANEL_CALLBACK_PATH = "/panel/callback";
export const PANEL_SIGN_OUT_PATH = "/panel/sign-out";
/** MCP for the page, which its session's cookie lets in. */
export const PANEL_MCP_PATH = "/panel/mcp";
/** The same pushed, as it changes. */
export const PANEL_STREAM_PATH = "/panel/stream";
