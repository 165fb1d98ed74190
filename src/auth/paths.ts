/** Where OAuth's parts are; the resources' metadata is under `METADATA_PATH`, at the path of each. */
export const AUTHORIZE_PATH = "/authorize";
export const GITHUB_CALLBACK_PATH = "/authorize/github";
/** Tokens, and their revocation. */
export const TOKEN_PATH = "/oauth/token";
export const REGISTRATION_PATH = "/oauth/register";
export const METADATA_PATH = "/.well-known/oauth-protected-resource";
export const SERVER_METADATA_PATH = "/.well-known/oauth-authorization-server";
