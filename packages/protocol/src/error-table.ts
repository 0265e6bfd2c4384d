/**
 * The error table: every failure that a user can meet, once, with what to do about it.
 *
 * `docs/errors.md` is generated from it. `exit` is the exit code of a command that fails so, `http` the status of an
 * answer.
 */

import { type ErrorRow, row } from './error-row.js';

// biome-ignore format: a row is a message, a hint, and a line of facts
export const ERRORS = {
  USAGE_INVALID: row(
    'the command line is not valid',
    "run 'qwen-supervisor --help' for the commands and their flags",
    400, 64, 'caller'),
  REQUEST_INVALID: row(
    'the request is not valid',
    'correct the field that the message names and send the request again',
    400, 64, 'caller'),
  BODY_INVALID: row(
    'the body is not a JSON object',
    'send one JSON object, for example {"prompt": "a fox on a teal background"}',
    400, 64, 'caller'),
  BODY_TOO_LARGE: row(
    'the body is too large',
    'send less: the texts of a request fit into 4 MiB, and with a picture into what the operator allows with max-upload-megabytes',
    413, 64, 'caller'),
  REQUEST_TIMEOUT: row(
    'the request did not come in time',
    'send the head of a request within 10 seconds, and its body without a pause',
    408, 64, 'caller', true),
  SERVER_BUSY: row(
    'as much as this server holds at once is being sent to it already',
    'send the request again after the time in Retry-After',
    503, 90, 'environment', true),
  HEADERS_TOO_LARGE: row('the headers are too large', 'send less than 16 KiB of headers', 431, 64, 'caller'),
  NOT_FOUND: row('there is nothing at this address', 'see /docs on this server for the routes', 404, 66, 'caller'),
  METHOD_NOT_ALLOWED: row(
    'this address takes another method',
    'use the method that the message names',
    405, 64, 'caller'),
  UPLOAD_INVALID: row(
    'the picture in the request cannot be used',
    'send a PNG, JPEG, WebP or GIF as base64, as a data: URL or as a file of a form',
    400, 65, 'caller'),
  KEY_MISSING: row(
    'this server wants an API key',
    'send one as Authorization: Bearer KEY, or as the password of Basic authentication; the operator has them in keys-file',
    401, 77, 'caller'),
  KEY_REFUSED: row(
    'the API key is not valid',
    'check the key with the operator: keys-file holds those that are',
    401, 77, 'caller'),
  ADMIN_ONLY: row(
    'this needs an admin key',
    "send a key that is listed as 'admin' in keys-file; without a keys-file use the command line: qwen-supervisor restart",
    403, 77, 'caller'),
  TOO_MANY_REQUESTS: row(
    'this key has sent too many requests',
    'wait for the time in Retry-After; the operator sets the bound with requests-per-minute',
    429, 90, 'caller', true),
  ORIGIN_REFUSED: row(
    'the request comes from a foreign page or for a foreign host',
    'call the server by an address, by localhost, or with an API key, and not from a page of another site; the operator can allow names with allow-hosts and pages with allow-origins',
    403, 77, 'caller'),
  JOB_NOT_FOUND: row(
    'there is no job with this id',
    "list the jobs with 'qwen-supervisor jobs list' or GET /api/v1/jobs; one that has ended may have been removed (DELETE, keep-days, keep-trash-days, keep-gigabytes)",
    404, 66, 'caller'),
  IMAGE_NOT_FOUND: row(
    'there is no picture with this id',
    'take the id from the images of a job that is done',
    404, 66, 'caller'),
  JOB_POISONED: row(
    'the job was in flight at too many deaths of the worker and is not tried again',
    "see 'qwen-supervisor crashes' for how the worker died; a smaller size needs less memory; POST /api/v1/jobs/{id}/retry tries once more",
    500, 67, 'caller'),
  JOB_NOT_RETRYABLE: row(
    'only a job that failed or was cancelled can be tried again',
    'wait until the job has ended; a job that is done has its picture already',
    409, 91, 'caller'),
  JOB_NOT_ENDED: row(
    'only a job that has ended can be removed',
    'cancel it first: POST /api/v1/jobs/{id}/cancel',
    409, 91, 'caller'),
  JOB_NOT_QUEUED: row(
    'only a queued job has a place to change',
    'list those that wait with GET /api/v1/jobs?status=queued',
    409, 91, 'caller'),
  MODEL_IN_USE: row(
    'the model is being loaded, or jobs want it',
    'wait until the queue is empty, or cancel its jobs, then unload again',
    409, 91, 'caller', true),
  MODEL_RUNNING: row(
    'the model is the one that the supervisor runs',
    "stop it first: 'qwen-supervisor stop'; or let it run another: 'qwen-supervisor model use', then start it again",
    409, 91, 'caller'),
  SIZE_TOO_LARGE: row(
    'there is not enough memory here for a picture of this size',
    "ask for the size that the message names; 'qwen-supervisor model plan' shows what larger ones need",
    400, 64, 'caller'),
  MODEL_UNKNOWN: row(
    'there is no such model here',
    'GET /api/v1/models lists the models of this server',
    404, 66, 'caller'),
  IDEMPOTENCY_KEY_REUSED: row(
    'this Idempotency-Key was used for another request',
    'choose a new key for every new request, and repeat a request unchanged with its own key',
    422, 92, 'caller'),
  QUEUE_FULL: row(
    'as many jobs are waiting as the queue may hold',
    'send the request again after the time in Retry-After; the operator sets the bound with max-queued',
    429, 90, 'environment', true),
  JOB_CANCELLED: row(
    'the job was cancelled',
    'send the request again if the picture is still wanted',
    409, 80, 'caller'),
  CONFIG_INVALID: row(
    'the configuration is not valid',
    'correct the key that the message names; config/qwen-supervisor.toml lists all keys',
    500, 78, 'environment'),
  CONFIG_UNREADABLE: row(
    'the configuration file cannot be read',
    'check the path given with --config and its permissions, and that it is valid TOML',
    500, 79, 'environment'),
  HOST_REFUSED: row(
    'an address beyond loopback is not served without API keys',
    "use --host 127.0.0.1, or make keys with 'qwen-supervisor keys add NAME --keys-file FILE' and name that file; '--keyless anywhere' serves everybody who can reach it",
    500, 77, 'environment'),
  KEYS_FILE_INVALID: row(
    'the file of API keys cannot be used',
    "write one key per line, 'use KEY' or 'admin KEY' with at least 16 characters, and let only its owner read it: chmod 600. 'qwen-supervisor keys add NAME' does all of it",
    500, 78, 'environment'),
  PORT_IN_USE: row(
    'the port is taken by another process',
    'stop the process that listens there, or choose another port with --port (0 picks a free one)',
    500, 69, 'environment'),
  PORT_UNUSABLE: row(
    'the address cannot be bound',
    'choose an address of this machine with --host and a port above 1023 with --port',
    500, 68, 'environment'),
  DATA_DIR_UNUSABLE: row(
    'the data folder cannot be used',
    'choose a folder that you may write to with --data-dir, and check that its disk is not full',
    500, 73, 'environment'),
  RUNTIME_DIR_UNUSABLE: row(
    'the folder for sockets cannot be used',
    'set XDG_RUNTIME_DIR to a short path that you own',
    500, 72, 'environment'),
  ALREADY_RUNNING: row(
    'another supervisor uses this data folder',
    "use the running one, end it with 'qwen-supervisor stop', or choose another folder with --data-dir",
    409, 75, 'environment'),
  NOT_RUNNING: row(
    'no supervisor runs on this data folder',
    "start it with 'qwen-supervisor start', or name its folder with --data-dir",
    503, 74, 'environment'),
  JOB_STORE_UNUSABLE: row(
    'the job database cannot be opened',
    'check the permissions of the data folder and its disk; move jobs.db aside to start with an empty queue',
    500, 71, 'environment'),
  DISK_FULL: row(
    'the disk of the data folder is full or does not answer',
    'make room on it and send the request again; what was accepted before is kept and goes on by itself',
    507, 94, 'environment', true),
  STORE_UNREACHABLE: row(
    'the shared job database does not answer',
    'start it, or mend its address or the network to it; what was accepted before is kept, and all goes on by itself',
    503, 71, 'environment', true),
  STORE_SCHEMA_OLD: row(
    "the shared job database was not made for this version, or not yet made",
    "run 'qwen-supervisor store migrate' once, on one machine; what was accepted before is kept",
    503, 71, 'environment', true),
  STORE_SCHEMA_NEWER: row(
    'the shared job database was changed by a newer version of qwen-supervisor',
    'install that version on this machine, too; nothing was changed',
    500, 71, 'environment'),
  STORE_NODE_TOO_OLD: row(
    'this Node is too old for the shared job database',
    "install Node 22.12 or newer, or use store = 'sqlite', which every supported Node can",
    500, 71, 'environment'),
  SHARED_FOLDER_UNREACHABLE: row(
    'the folder or bucket that all machines share cannot be read or written',
    "mount it, or mend its permissions; what it needs in it 'qwen-supervisor store migrate' makes, once. Of a bucket look at address, AWS_ACCESS_KEY_ID and AWS_REGION",
    503, 71, 'environment', true),
  MACHINE_NOT_FOUND: row(
    'there is no machine of this name that shares the queue',
    "see 'qwen-supervisor machines list'; a machine whose 'store' is 'sqlite' shares its queue with nobody",
    404, 66, 'caller'),
  MODEL_NOT_FOUND: row(
    'the model folder is missing or not complete',
    'name a diffusers checkpoint folder with --model: it holds model_index.json, transformer/, text_encoder/, vae/, tokenizer/ and scheduler/',
    500, 66, 'environment'),
  MODEL_NOT_DOWNLOADED: row(
    'a file of the model is only a placeholder',
    "fetch the files themselves: 'git lfs pull' in the folder, or 'hf download Qwen/Qwen-Image --local-dir FOLDER'; a web page in place of a file means that the download wanted a login",
    500, 66, 'environment'),
  MODEL_INVALID: row(
    'a file of the model cannot be understood',
    'compare the file that the message names with the published one (size, checksum): it is damaged, or not what its name says',
    500, 65, 'environment'),
  MODEL_TRUNCATED: row(
    'a weight file is shorter than its header says',
    'the download was cut off: fetch the file that the message names again',
    500, 85, 'environment'),
  MODEL_UNSUPPORTED: row(
    'the model is of an architecture that is not supported',
    'use a Qwen-Image 1.x text-to-image checkpoint in the diffusers layout (QwenImagePipeline), its weights in bf16, fp16 or fp32',
    500, 86, 'environment'),
  MODEL_NOT_ADDED: row(
    'a model of this size has to be prepared for this machine first',
    "run 'qwen-supervisor model add FOLDER', once: it takes minutes, and says what it needs",
    500, 66, 'environment'),
  MODEL_TOO_LARGE: row(
    'there is not enough memory for the model',
    "close other programs, raise the limit of the container or service, or add the model anew with --quantize int4; 'qwen-supervisor model plan' shows what each needs",
    500, 93, 'environment'),
  MODEL_EXISTS: row(
    'there is a model of this name',
    "choose another with --name, or remove it: 'qwen-supervisor model remove NAME'",
    409, 91, 'caller'),
  MODEL_NOT_REGISTERED: row(
    'there is no model of this name',
    "see 'qwen-supervisor model list' for those that were added",
    404, 66, 'caller'),
  MODEL_BEING_ADDED: row(
    'another process is adding a model of this name',
    'wait until it has ended; what it has prepared is kept even if it is killed',
    409, 75, 'environment', true),
  MODEL_CHANGED: row(
    'the files of a model are not those that it was added from',
    "put the original files back, or remove the model and add it again: 'qwen-supervisor model remove NAME'",
    500, 65, 'environment'),
  LICENSE_NOT_ACCEPTED: row(
    'the licence of the model forbids commercial use',
    'read it, and add --accept-license if you use the model within it',
    403, 77, 'caller'),
  LORA_INVALID: row(
    'the LoRA does not fit this model',
    'use a LoRA for Qwen-Image text to image in safetensors: names of diffusers, PEFT or kohya',
    400, 65, 'caller'),
  MODEL_LOAD_FAILED: row(
    'the model could not be loaded',
    "read the reason in the message and in 'qwen-supervisor logs'; check free memory and disk space",
    500, 87, 'environment', true),
  MODEL_LOAD_STALLED: row(
    'the model load made no progress',
    'check the disk that holds the model; raise --load-stall-seconds or --load-limit-seconds if it is only slow',
    500, 88, 'environment', true),
  GOLDEN_INVALID: row(
    'the golden tensors cannot be used',
    'make them with test/reference/golden.py; docs/model-check.md says how',
    500, 83, 'caller'),
  GOLDEN_MISMATCH: row(
    'the model does not reproduce the golden tensors',
    'the device, the runtime or the checkpoint computes something else: do not trust its pictures; the tensors beyond their limit are named',
    500, 84, 'environment'),
  WORKER_FAILED: row(
    'the inference worker has been given up',
    "read the reason in 'qwen-supervisor status' and 'qwen-supervisor crashes', repair it, then run 'qwen-supervisor restart', of several workers with the name of each",
    503, 81, 'environment'),
  DEVICE_MEMORY_EXHAUSTED: row(
    'the device has no memory left for this',
    'ask for a smaller picture, or end what else uses the device (the log names it where that is known)',
    500, 93, 'environment', true),
  DEVICE_LOST: row(
    'the device was lost while it computed',
    'nothing is lost but time: the worker begins anew and the job goes on at its last step; if it happens again look at the driver, the power and the heat of the card',
    500, 93, 'environment', true),
  DEVICE_UNAVAILABLE: row(
    'the device cannot be used',
    "install its driver (Vulkan: mesa-vulkan-drivers or NVIDIA's, and libvulkan1) and look with 'qwen-supervisor device list'; --device cpu draws without a card; docs/gpu.md has the steps",
    500, 93, 'environment'),
  DEVICE_DRIVER_UNUSABLE: row(
    'the driver of the graphics card is not there',
    "install the driver (NVIDIA: 580 or newer for CUDA; AMD and Intel: the Vulkan driver of mesa-vulkan-drivers, and libvulkan1), then look with 'qwen-supervisor device list'",
    500, 93, 'environment'),
  DEVICE_DRIVER_OLD: row(
    'the driver of the graphics card is older than CUDA 13',
    "update NVIDIA's driver to 580 or newer ('nvidia-smi' names the one that is there) and restart the machine; until then the card computes through Vulkan: --device webgpu",
    500, 93, 'environment'),
  CUDA_RUNTIME_INCOMPLETE: row(
    'a library that CUDA needs is missing',
    "run 'qwen-supervisor gpu install'; 'qwen-supervisor gpu status' shows what is there",
    500, 93, 'environment'),
  DEVICE_IN_USE: row(
    'the supervisor computes on this device',
    "stop it first: 'qwen-supervisor stop'",
    409, 91, 'caller'),
  WHEEL_MISSING: row(
    'a package of the CUDA libraries is not there',
    "download it elsewhere and name its folder: 'qwen-supervisor gpu install --from DIR'; 'qwen-supervisor gpu status' lists the files with their checksums",
    500, 66, 'environment'),
  WHEEL_INVALID: row(
    'a package of the CUDA libraries is not the one that it should be',
    "remove the file that the message names, and run 'qwen-supervisor gpu install' again",
    500, 65, 'environment'),
  GPU_INSTALL_RUNNING: row(
    'another process installs the CUDA libraries',
    'wait for it to end',
    500, 75, 'caller', true),
  RUNTIME_UNLOADABLE: row(
    'a library that pictures are computed with cannot be loaded',
    "use a Linux with glibc (Debian, Ubuntu; Alpine has musl), macOS or Windows, and a processor with SSE4.2; where files are missing install again: 'npm ci'",
    500, 96, 'environment'),
  INFERENCE_FAILED: row(
    'the picture could not be computed',
    "try a smaller size; if it happens again, see 'qwen-supervisor logs'",
    500, 82, 'us', true),
  VALUES_NOT_FINITE: row(
    'the model has computed values that are no numbers',
    "nothing is kept of it: check the model with 'qwen-supervisor model check' or a fresh copy of its files; on a graphics card try another driver or precision",
    500, 95, 'environment'),
  IMAGE_WRITE_FAILED: row(
    'the picture could not be written',
    'check the permissions and the free space of the data folder, then send the request again',
    500, 89, 'environment', true),
  SUPERVISOR_STOPPING: row(
    'the supervisor is stopping',
    'wait until it runs again; accepted jobs are kept and go on then',
    503, 76, 'environment', true),
  API_RESTARTING: row(
    'the API is being restarted; the job goes on',
    'send the request again, with the same Idempotency-Key if it had one, or ask for the job by its id',
    503, 76, 'environment', true),
  VERSION_MISMATCH: row(
    'the program was replaced by another version while the supervisor runs',
    "start it anew: 'qwen-supervisor stop', then start it as before; accepted jobs are kept",
    503, 76, 'environment'),
  MESSAGE_INVALID: row(
    'a process has sent a message that is not understood',
    "this is a bug, or a program of another version: see 'qwen-supervisor logs'",
    500, 70, 'us'),
  SUPERVISOR_SILENT: row(
    'the supervisor does not answer',
    "a stopped one is woken with 'kill -CONT PID'; one that hangs is ended with 'kill -9 PID' and started anew: accepted jobs are kept",
    503, 98, 'environment', true),
  LINK_LOST: row(
    'the connection to the supervisor was lost',
    "see whether it still runs with 'qwen-supervisor status'; accepted jobs are kept",
    503, 76, 'environment', true),
  OUTPUT_UNWRITABLE: row(
    'the output file cannot be written',
    'choose a path that you may write to with -o; the picture itself is kept in the data folder',
    500, 73, 'caller'),
  DOCTOR_FAILED: row(
    'something here keeps this machine from drawing',
    "do what the lines that begin with 'fail' say, and look again",
    500, 99, 'environment'),
  VERIFY_FAILED: row(
    'the system does not do what it should',
    "the lines that begin with 'fail' say what; 'qwen-supervisor doctor' looks for the cause",
    500, 97, 'environment'),
  SYSTEMD_MISSING: row(
    'there is no systemd that can be asked',
    "log in as the user whose service it is, not by 'su'; where the machine has no systemd, let what starts services there run 'qwen-supervisor start'",
    500, 69, 'environment'),
  SYSTEMD_REFUSED: row(
    'systemd did not do it',
    "'journalctl --user -u qwen-supervisor' says why, for a service of the machine without --user",
    500, 70, 'environment'),
  SERVICE_NOT_INSTALLED: row(
    'the service is not installed',
    "install it with 'qwen-supervisor service install', and with --system for one of the machine",
    404, 66, 'caller'),
  SERVICE_FOREIGN: row(
    'a unit of this name is there that this program did not write',
    "look at it, move it away if nobody needs it, and try again; 'qwen-supervisor service print' shows what would be written",
    409, 91, 'environment'),
  PROGRAM_NOT_INSTALLED: row(
    'the program is not installed for good',
    "install it with 'npm install --global qwen-supervisor' and try again",
    409, 91, 'environment'),
  INSTALL_INCOMPLETE: row(
    'a package that the program needs is missing',
    "install it again: 'npm install -g --ignore-scripts FILE.tgz', or 'npm ci' in the repository",
    500, 70, 'environment'),
  NOT_BUILT: row(
    'the program has not been built',
    "run 'npm ci && npm run build' in the repository first",
    500, 70, 'environment'),
  INTERNAL: row(
    'something went wrong inside qwen-supervisor',
    "this is a bug: see 'qwen-supervisor logs' and report the lines around the time of the error",
    500, 70, 'us'),
} as const satisfies Record<string, ErrorRow>;
