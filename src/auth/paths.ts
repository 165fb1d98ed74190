/** The paths of OAuth. The metadata of a resource is at `METADATA_PATH` followed by the path of the resource. */
export const AUTHORIZE_PATH = "/authorize";
export const GITHUB_CALLBACK_PATH = "/authorize/github";
/** Issues tokens and revokes them. */
export const TOKEN_PATH = "/oauth/token";
export const REGISTRATION_PATH = "/oauth/register";
export const METADATA_PATH = "/.well-known/oauth-protected-resource";
export const SERVER_METADATA_PATH = "/.well-known/oauth-authorization-server";
