/**
 * What a server does with a stream.
 *
 * @module
 */

export { echo } from "./echo.ts";
