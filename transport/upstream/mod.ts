/**
 * What a server does with a stream.
 *
 * @module
 */

export { echo } from "./echo.ts";
export { staticFiles, type StaticFilesOptions } from "./static_files.ts";
