/** An error that the user can correct. Printed without a stack. The exit status is 1, except for a `CommandError`, which sets its own. */
export class UserError extends Error {
  override readonly name = "UserError";
}
