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
/** Beside those that the environment names. */
const MANIFEST_FOLDERS = ['usr/local/etc', 'etc', 'run/opengl-driver/share'];
/** Where the environment says nothing of the data and configuration of all users. */
const [SHARED_DATA, SHARED_CONFIG] = [['usr/local/share', 'usr/share'], ['etc/xdg']];
/** Drivers that compute on the processor. */
const SOFTWARE = /lvp|lavapipe|llvmpipe|swiftshader|swrast/i;

/** `root`: of the file system. */
export function readVulkan(env: NodeJS.ProcessEnv, root = '/'): Vulkan {
  const folders = [...listed(env.LD_LIBRARY_PATH ?? ''), ...LIBRARY_FOLDERS.map((folder) => join(root, folder))];
  const named = env.VK_DRIVER_FILES ?? env.VK_ICD_FILENAMES;
  const home = env.HOME ?? '/';
  const shared = (list: string | undefined, usual: string[]) =>
    list ? listed(list) : usual.map((folder) => join(root, folder));
  const manifestFolders = [
    env.XDG_CONFIG_HOME || join(home, '.config'),
    ...shared(env.XDG_CONFIG_DIRS, SHARED_CONFIG),
    ...MANIFEST_FOLDERS.map((folder) => join(root, folder)),
    env.XDG_DATA_HOME || join(home, '.local/share'),
    ...shared(env.XDG_DATA_DIRS, SHARED_DATA),
  ].map((folder) => join(folder, 'vulkan/icd.d'));
  const found = [...new Set(manifestFolders)].flatMap(manifestsIn);
  const manifests = named ? listed(named) : [...listed(env.VK_ADD_DRIVER_FILES ?? ''), ...found];
  return {
    hasLoader: folders.some((folder) => existsSync(join(folder, LOADER))),
    drivers: manifests.flatMap((manifest) =>
      libraryOf(manifest).map((library) => ({ manifest, library, isSoftware: SOFTWARE.test(library) })),
    ),
  };
}

function listed(paths: string): string[] {
  return paths.split(delimiter).filter((path) => path !== '');
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
