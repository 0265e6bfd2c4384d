/**
 * What of Vulkan, through which WebGPU computes, is installed: the loader, and the drivers that it finds by their
 * manifests.
 *
 * Reference: Vulkan-Loader, LoaderDriverInterface.md, "Driver Discovery on Linux".
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { basename, delimiter, join } from 'node:path';

export interface Vulkan {
  /** Whether the loader, `libvulkan.so.1`, was found. */
  hasLoader: boolean;
  /** `manifest`: the file by which the loader knows it. */
  drivers: { manifest: string; library: string; isSoftware: boolean }[];
}

const LOADER = 'libvulkan.so.1';
const LIBRARY_FOLDERS = [
  'lib/x86_64-linux-gnu',
  'usr/lib/x86_64-linux-gnu',
  'usr/lib64',
  'usr/lib',
  'usr/local/lib',
  'run/opengl-driver/lib',
];
const MANIFEST_FOLDERS = [
  'etc/vulkan/icd.d',
  'usr/share/vulkan/icd.d',
  'usr/local/share/vulkan/icd.d',
  'run/opengl-driver/share/vulkan/icd.d',
];
/** Drivers that compute on the processor. */
const SOFTWARE = /lvp|lavapipe|llvmpipe|swiftshader|swrast/i;

/** `root`: of the file system. */
export function readVulkan(env: NodeJS.ProcessEnv, root = '/'): Vulkan {
  const folders = [
    ...(env.LD_LIBRARY_PATH ?? '').split(delimiter).filter((folder) => folder !== ''),
    ...LIBRARY_FOLDERS.map((folder) => join(root, folder)),
  ];
  const named = env.VK_DRIVER_FILES ?? env.VK_ICD_FILENAMES;
  const own = join(env.XDG_DATA_HOME ?? join(env.HOME ?? '/', '.local/share'), 'vulkan/icd.d');
  const manifests = named
    ? named.split(delimiter)
    : [...MANIFEST_FOLDERS.map((folder) => join(root, folder)), own].flatMap(manifestsIn);
  return {
    hasLoader: folders.some((folder) => existsSync(join(folder, LOADER))),
    drivers: manifests.flatMap((manifest) =>
      libraryOf(manifest).map((library) => ({ manifest, library, isSoftware: SOFTWARE.test(library) })),
    ),
  };
}

function manifestsIn(folder: string): string[] {
  if (!existsSync(folder)) return [];
  const names = readdirSync(folder).filter((name) => name.endsWith('.json'));
  return names.sort().map((name) => join(folder, name));
}

/** None for a manifest that says nothing; the loader passes it over as well. */
function libraryOf(manifest: string): string[] {
  try {
    const { ICD } = JSON.parse(readFileSync(manifest, 'utf8')) as { ICD?: { library_path?: unknown } };
    return typeof ICD?.library_path === 'string' ? [basename(ICD.library_path)] : [];
  } catch {
    return [];
  }
}
