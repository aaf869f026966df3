// Makes one script for a browser of a module and the packages that it imports. Arguments: the module, the script.
import { build } from "esbuild";

const [entry, outfile] = process.argv.slice(2);
await build({ entryPoints: [entry], outfile, bundle: true, format: "esm", logLevel: "error" });
