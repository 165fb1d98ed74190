/** The paths of OAuth and the panel. A resource's metadata is at `METADATA_PATH` followed by the resource's path. */
export const AUTHORIZE_PATH = "/authorize";
export const TOKEN_PATH = "/oauth/token";
export const REGISTRATION_PATH = "/oauth/register";
export const METADATA_PATH = "/.well-known/oauth-protected-resource";
export const SERVER_METADATA_PATH = "/.well-known/oauth-authorization-server";

export const PANEL_PATH = "/panel";
export const PANEL_ASSETS_PATH = "/panel/assets";
export const PANEL_SIGN_IN_PATH = "/panel/sign-in";
export const PANEL_CALLBACK_PATH = "/panel/callback";
export const PANEL_SIGN_OUT_PATH = "/panel/sign-out";
export const PANEL_MCP_PATH = "/panel/mcp";
