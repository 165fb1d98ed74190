/** Something the user can put right: its message is printed as it is, and the exit status is 1. */
export class UserError extends Error {
  override readonly name = "UserError";
}
