/* A stand-in for NVIDIA's libnvidia-ml.so.1: what it answers is written in the file that FOOTLIGHTS_NVML_STATE names.
 *
 * The file is read again whenever it changed, so that GPUs may fail, vanish and return while a process has the library
 * open. Its lines are "key value"; `standin/__init__.py` writes it. A line after "gpu UUID" belongs to that GPU, one
 * after "instance UUID" to that MIG instance of it. A question that no line answers is NOT_SUPPORTED.
 *
 * Structures and error numbers follow NVIDIA's NVML API Reference Guide.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

typedef unsigned int u32;
typedef unsigned long long u64;

enum {
    OK = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9, TIMEOUT = 10, GPU_IS_LOST = 15
};
enum { UNITS = 256, PROCESSES = 64, ERRORS = 32, XIDS = 64, TEXT = 96, FUNCTION = 80 };
#define UNSAID (-1LL)
#define NO_SIZE (~0ULL)

struct process { char kind; u32 pid; u64 used; char name[TEXT]; };
struct error { char function[FUNCTION]; int code; };

struct unit { /* a GPU, or a MIG instance of the GPU `parent` */
    char uuid[TEXT], name[TEXT], pci[32], profile[32];
    int parent, mig, lost, has_processes, processes, errors, xids;
    long long total, used, utilization, encoder_sessions, encoder_capacity, graphics_allowed, encoders;
    long long corrected, uncorrected, retired, retired_pending, recovery;
    long long remapped[4];
    struct process process[PROCESSES];
    struct error error[ERRORS];
    u32 xid[XIDS];
};

static struct state {
    char driver[TEXT], library[TEXT];
    int driver_error, units, errors;
    long long generation;
    struct unit unit[UNITS];
    struct error error[ERRORS];
} now;

/* A handle outlives the state it came from, as a real one outlives its GPU: it only stands for a uuid. */
static struct id { char uuid[TEXT]; } ids[4096];
static int id_count;
static struct stat read_version;
static int opened;
static long long opened_generation;
static u64 told[4096]; /* XIDs already told, by id */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct unit *add_unit(const char *uuid, int parent) {
    if (now.units == UNITS) abort();
    struct unit *unit = &now.unit[now.units++];
    memset(unit, 0, sizeof *unit);
    snprintf(unit->uuid, sizeof unit->uuid, "%s", uuid);
    unit->parent = parent;
    unit->total = unit->utilization = unit->encoder_sessions = unit->encoder_capacity = unit->graphics_allowed = UNSAID;
    unit->encoders = unit->corrected = unit->uncorrected = unit->retired = unit->retired_pending = UNSAID;
    unit->recovery = unit->remapped[0] = UNSAID;
    return unit;
}

static void add_error(struct error *errors, int *count, const char *value) {
    if (*count == ERRORS) abort();
    if (sscanf(value, "%79s %d", errors[*count].function, &errors[*count].code) != 2) abort();
    ++*count;
}

static void add_process(struct unit *unit, const char *value) {
    if (unit->processes == PROCESSES) abort();
    struct process *process = &unit->process[unit->processes++];
    long long used;
    process->name[0] = 0;
    if (sscanf(value, "%c %u %lld %95[^\n]", &process->kind, &process->pid, &used, process->name) < 3) abort();
    process->used = used < 0 ? NO_SIZE : (u64)used;
}

static void read_line(const char *key, const char *value) {
    static int gpu = -1;
    struct unit *unit = now.units ? &now.unit[now.units - 1] : NULL;
    long long number = atoll(value);
#define NUMBER(text, member) if (!strcmp(key, text)) { unit->member = number; return; }
    if (!strcmp(key, "driver_version")) { snprintf(now.driver, TEXT, "%s", value); return; }
    if (!strcmp(key, "library_version")) { snprintf(now.library, TEXT, "%s", value); return; }
    if (!strcmp(key, "driver_error")) { now.driver_error = (int)number; return; }
    if (!strcmp(key, "generation")) { now.generation = number; return; }
    if (!strcmp(key, "gpu")) { gpu = now.units; add_unit(value, -1); return; }
    if (!strcmp(key, "error") && !unit) { add_error(now.error, &now.errors, value); return; }
    if (!unit) abort();
    if (!strcmp(key, "instance")) { add_unit(value, gpu); return; }
    if (!strcmp(key, "error")) { add_error(unit->error, &unit->errors, value); return; }
    if (!strcmp(key, "process")) { add_process(unit, value); return; }
    if (!strcmp(key, "name")) { snprintf(unit->name, TEXT, "%s", value); return; }
    if (!strcmp(key, "pci")) { snprintf(unit->pci, sizeof unit->pci, "%s", value); return; }
    if (!strcmp(key, "profile")) { snprintf(unit->profile, sizeof unit->profile, "%s", value); return; }
    if (!strcmp(key, "memory")) { if (sscanf(value, "%lld %lld", &unit->total, &unit->used) != 2) abort(); return; }
    if (!strcmp(key, "xid")) { if (unit->xids == XIDS) abort(); unit->xid[unit->xids++] = (u32)number; return; }
    if (!strcmp(key, "remapped_rows")) {
        long long *r = unit->remapped;
        if (sscanf(value, "%lld %lld %lld %lld", &r[0], &r[1], &r[2], &r[3]) != 4) abort();
        return;
    }
    NUMBER("processes", has_processes)
    NUMBER("mig", mig)
    NUMBER("lost", lost)
    NUMBER("utilization", utilization)
    NUMBER("encoder_sessions", encoder_sessions)
    NUMBER("encoder_capacity", encoder_capacity)
    NUMBER("graphics_allowed", graphics_allowed)
    NUMBER("encoders", encoders)
    NUMBER("ecc_corrected", corrected)
    NUMBER("ecc_uncorrected", uncorrected)
    NUMBER("retired_pages", retired)
    NUMBER("retired_pages_pending", retired_pending)
    NUMBER("recovery_action", recovery)
    fprintf(stderr, "stand-in NVML: unknown line: %s %s\n", key, value);
    abort();
}

static void refresh(void) {
    const char *path = getenv("FOOTLIGHTS_NVML_STATE");
    struct stat version;
    FILE *file = path ? fopen(path, "r") : NULL;
    if (!file || fstat(fileno(file), &version)) {
        if (file) fclose(file);
        now.driver_error = DRIVER_NOT_LOADED;
        memset(&read_version, 0, sizeof read_version);
        return;
    }
    if (version.st_ino == read_version.st_ino && version.st_size == read_version.st_size &&
        version.st_mtim.tv_sec == read_version.st_mtim.tv_sec && version.st_mtim.tv_nsec == read_version.st_mtim.tv_nsec) {
        fclose(file);
        return;
    }
    read_version = version;
    now.units = now.errors = now.driver_error = 0;
    now.generation = 0;
    char line[512];
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        if (!line[0] || line[0] == '#') continue;
        char *space = strchr(line, ' ');
        if (space) *space = 0;
        read_line(line, space ? space + 1 : "");
    }
    fclose(file);
}

static int error_of(const struct error *errors, int count, const char *function) {
    char plain[FUNCTION];
    snprintf(plain, sizeof plain, "%s", function);
    size_t length = strlen(plain);
    if (length > 3 && plain[length - 3] == '_' && plain[length - 2] == 'v') plain[length - 3] = 0;
    for (int i = 0; i < count; i++)
        if (!strcmp(errors[i].function, function) || !strcmp(errors[i].function, plain)) return errors[i].code;
    return OK;
}

/* What any function answers before it looks at a device. */
static int entry(const char *function) {
    refresh();
    if (now.driver_error) return now.driver_error;
    if (!opened || opened_generation != now.generation) return UNINITIALIZED;
    return error_of(now.error, now.errors, function);
}

static struct unit *unit_of(const struct id *handle) {
    for (int i = 0; i < now.units; i++)
        if (!strcmp(now.unit[i].uuid, handle->uuid)) return &now.unit[i];
    return NULL;
}

static int ask(const char *function, const struct id *handle, struct unit **unit) {
    int status = entry(function);
    if (status) return status;
    if (handle < ids || handle >= ids + id_count) return INVALID_ARGUMENT;
    *unit = unit_of(handle);
    if (!*unit) return GPU_IS_LOST;
    const struct unit *gpu = (*unit)->parent < 0 ? *unit : &now.unit[(*unit)->parent];
    if (gpu->lost) return GPU_IS_LOST;
    return error_of(gpu->error, gpu->errors, function);
}

static struct id *handle_of(const char *uuid) {
    for (int i = 0; i < id_count; i++)
        if (!strcmp(ids[i].uuid, uuid)) return &ids[i];
    if (id_count == 4096) abort();
    snprintf(ids[id_count].uuid, TEXT, "%s", uuid);
    return &ids[id_count++];
}

static int put(char *into, u32 size, const char *text) {
    if (strlen(text) >= size) return INSUFFICIENT_SIZE;
    strcpy(into, text);
    return OK;
}

#define BEGIN pthread_mutex_lock(&lock); int status = OK;
#define END pthread_mutex_unlock(&lock); return status;
#define BEGIN_UNIT BEGIN struct unit *unit = NULL; status = ask(__func__, device, &unit); if (!status) {
#define END_UNIT } END
#define ANSWER(type, into, member) { if (unit->member == UNSAID) status = NOT_SUPPORTED; else *(into) = (type)unit->member; }

int nvmlInitWithFlags(u32 flags) {
    (void)flags;
    BEGIN
    refresh();
    status = now.driver_error;
    if (!status) { opened++; opened_generation = now.generation; }
    END
}
int nvmlShutdown(void) {
    BEGIN
    if (opened) opened--; else status = UNINITIALIZED;
    END
}
const char *nvmlErrorString(int code) {
    static char text[32];
    snprintf(text, sizeof text, "error %d", code);
    return text;
}
int nvmlSystemGetDriverVersion(char *into, u32 size) { BEGIN status = entry(__func__); if (!status) status = put(into, size, now.driver); END }
int nvmlSystemGetNVMLVersion(char *into, u32 size) { BEGIN status = entry(__func__); if (!status) status = put(into, size, now.library); END }

int nvmlSystemGetProcessName(u32 pid, char *into, u32 size) {
    BEGIN
    status = entry(__func__);
    if (!status) {
        status = NOT_FOUND;
        for (int i = 0; i < now.units; i++)
            for (int k = 0; k < now.unit[i].processes; k++)
                if (now.unit[i].process[k].pid == pid && now.unit[i].process[k].name[0])
                    status = put(into, size, now.unit[i].process[k].name);
    }
    END
}

int nvmlDeviceGetCount_v2(u32 *count) {
    BEGIN
    status = entry(__func__);
    if (!status) {
        *count = 0;
        for (int i = 0; i < now.units; i++) *count += now.unit[i].parent < 0;
    }
    END
}

int nvmlDeviceGetHandleByIndex_v2(u32 index, struct id **into) {
    BEGIN
    status = entry(__func__);
    if (!status) {
        status = INVALID_ARGUMENT;
        for (int i = 0; i < now.units; i++) {
            struct unit *unit = &now.unit[i];
            if (unit->parent >= 0 || index--) continue;
            status = unit->lost ? GPU_IS_LOST : error_of(unit->error, unit->errors, __func__);
            *into = handle_of(unit->uuid);
            break;
        }
    }
    END
}

int nvmlDeviceGetHandleByUUID(const char *uuid, struct id **into) {
    BEGIN
    status = entry(__func__);
    if (!status) {
        struct id *device = handle_of(uuid);
        struct unit *unit = unit_of(device);
        status = !unit ? NOT_FOUND : unit->lost ? GPU_IS_LOST : OK;
        *into = device;
    }
    END
}

int nvmlDeviceGetUUID(struct id *device, char *into, u32 size) { BEGIN_UNIT status = put(into, size, unit->uuid); END_UNIT }

int nvmlDeviceGetName(struct id *device, char *into, u32 size) { BEGIN_UNIT status = put(into, size, unit->name); END_UNIT }

struct pci { char legacy[16]; u32 domain, bus, device, device_id, subsystem; char id[32]; };
int nvmlDeviceGetPciInfo_v3(struct id *device, struct pci *into) {
    BEGIN_UNIT
    if (!unit->pci[0]) status = NOT_SUPPORTED;
    else {
        memset(into, 0, sizeof *into);
        status = put(into->id, sizeof into->id, unit->pci);
    }
    END_UNIT
}

struct memory { u64 total, free, used; };
int nvmlDeviceGetMemoryInfo(struct id *device, struct memory *into) {
    BEGIN_UNIT
    if (unit->total == UNSAID) status = NOT_SUPPORTED;
    else {
        into->total = (u64)unit->total;
        into->used = (u64)unit->used;
        into->free = unit->used > unit->total ? 0 : (u64)(unit->total - unit->used);
    }
    END_UNIT
}

struct memory_v2 { u32 version; u64 total, reserved, free, used; };
int nvmlDeviceGetMemoryInfo_v2(struct id *device, struct memory_v2 *into) {
    BEGIN_UNIT
    if (into->version != (sizeof *into | 2 << 24)) status = INVALID_ARGUMENT;
    else if (unit->total == UNSAID) status = NOT_SUPPORTED;
    else {
        into->total = (u64)unit->total;
        into->reserved = 0;
        into->used = (u64)unit->used;
        into->free = unit->used > unit->total ? 0 : (u64)(unit->total - unit->used);
    }
    END_UNIT
}

struct utilization { u32 gpu, memory; };
int nvmlDeviceGetUtilizationRates(struct id *device, struct utilization *into) {
    BEGIN_UNIT into->memory = 0; ANSWER(u32, &into->gpu, utilization) END_UNIT
}

int nvmlDeviceGetEncoderStats(struct id *device, u32 *sessions, u32 *fps, u32 *latency) {
    BEGIN_UNIT *fps = *latency = 0; ANSWER(u32, sessions, encoder_sessions) END_UNIT
}

int nvmlDeviceGetEncoderCapacity(struct id *device, u32 codec, u32 *into) {
    (void)codec;
    BEGIN_UNIT ANSWER(u32, into, encoder_capacity) END_UNIT
}

int nvmlDeviceGetGpuOperationMode(struct id *device, u32 *current, u32 *pending) {
    BEGIN_UNIT
    if (unit->graphics_allowed == UNSAID) status = NOT_SUPPORTED;
    else *current = *pending = unit->graphics_allowed ? 0 : 1; /* ALL_ON, COMPUTE */
    END_UNIT
}

struct row_v1 { u32 pid; u64 used; };
struct row_v2 { u32 pid; u64 used; u32 gpu_instance, compute_instance; };

static int list(const struct unit *unit, char kind, u32 *count, struct row_v1 *first, struct row_v2 *later) {
    u32 room = *count;
    *count = 0;
    if (!unit->has_processes) return NOT_SUPPORTED;
    for (int i = 0; i < unit->processes; i++) {
        const struct process *process = &unit->process[i];
        if (process->kind != kind) continue;
        if (*count < room && first) first[*count] = (struct row_v1){process->pid, process->used};
        if (*count < room && later) later[*count] = (struct row_v2){process->pid, process->used, ~0u, ~0u};
        ++*count;
    }
    return *count > room || (*count && !first && !later) ? INSUFFICIENT_SIZE : OK;
}

#define LISTS(function, kind) \
    int function(struct id *device, u32 *count, struct row_v1 *rows) { BEGIN_UNIT status = list(unit, kind, count, rows, NULL); END_UNIT } \
    int function##_v2(struct id *device, u32 *count, struct row_v2 *rows) { BEGIN_UNIT status = list(unit, kind, count, NULL, rows); END_UNIT } \
    int function##_v3(struct id *device, u32 *count, struct row_v2 *rows) { BEGIN_UNIT status = list(unit, kind, count, NULL, rows); END_UNIT }
LISTS(nvmlDeviceGetComputeRunningProcesses, 'C')
LISTS(nvmlDeviceGetGraphicsRunningProcesses, 'G')

int nvmlDeviceGetTotalEccErrors(struct id *device, u32 severity, u32 counter, u64 *into) {
    BEGIN_UNIT
    if (counter) status = NOT_SUPPORTED; /* only the volatile one is kept */
    else if (severity) ANSWER(u64, into, uncorrected)
    else ANSWER(u64, into, corrected)
    END_UNIT
}

int nvmlDeviceGetRetiredPages(struct id *device, u32 cause, u32 *count, u64 *addresses) {
    BEGIN_UNIT
    if (unit->retired == UNSAID) status = NOT_SUPPORTED;
    else {
        u32 room = *count;
        *count = cause ? 0 : (u32)unit->retired;
        if (*count > room) status = INSUFFICIENT_SIZE;
        else for (u32 i = 0; i < *count; i++) addresses[i] = i * 4096ULL;
    }
    END_UNIT
}

int nvmlDeviceGetRetiredPagesPendingStatus(struct id *device, u32 *into) { BEGIN_UNIT ANSWER(u32, into, retired_pending) END_UNIT }

int nvmlDeviceGetRemappedRows(struct id *device, u32 *correctable, u32 *uncorrectable, u32 *pending, u32 *failed) {
    BEGIN_UNIT
    ANSWER(u32, correctable, remapped[0])
    *uncorrectable = (u32)unit->remapped[1];
    *pending = (u32)unit->remapped[2];
    *failed = (u32)unit->remapped[3];
    END_UNIT
}

struct field { u32 id, scope; long long timestamp, latency; u32 type; int status; union { double d; u32 u; u64 ull; } value; };
int nvmlDeviceGetFieldValues(struct id *device, int count, struct field *fields) {
    BEGIN_UNIT
    for (int i = 0; i < count; i++) {
        fields[i].status = fields[i].id == 230 && unit->recovery != UNSAID ? OK : NOT_SUPPORTED; /* GET_GPU_RECOVERY_ACTION */
        fields[i].type = 1;
        fields[i].value.u = (u32)unit->recovery;
    }
    END_UNIT
}

int nvmlDeviceGetMigMode(struct id *device, u32 *current, u32 *pending) {
    BEGIN_UNIT *current = *pending = (u32)unit->mig; END_UNIT
}

int nvmlDeviceGetMaxMigDeviceCount(struct id *device, u32 *count) { (void)device; BEGIN_UNIT *count = 7; END_UNIT }

int nvmlDeviceGetMigDeviceHandleByIndex(struct id *device, u32 index, struct id **into) {
    BEGIN_UNIT
    status = NOT_FOUND;
    for (int i = 0; i < now.units; i++)
        if (now.unit[i].parent == unit - now.unit && !index--) {
            *into = handle_of(now.unit[i].uuid);
            status = OK;
            break;
        }
    END_UNIT
}

int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(struct id *device, struct id **into) {
    BEGIN_UNIT
    if (unit->parent < 0) status = INVALID_ARGUMENT;
    else *into = handle_of(now.unit[unit->parent].uuid);
    END_UNIT
}

struct attributes { u32 multiprocessors, copy, decoders, encoders, jpeg, ofa, gpu_slices, compute_slices; u64 memory_mb; };
int nvmlDeviceGetAttributes_v2(struct id *device, struct attributes *into) {
    BEGIN_UNIT
    if (unit->parent < 0) status = NOT_SUPPORTED;
    else {
        memset(into, 0, sizeof *into);
        into->encoders = (u32)unit->encoders;
        into->gpu_slices = into->compute_slices = (u32)atoi(unit->profile);
        into->memory_mb = (u64)unit->total >> 20;
    }
    END_UNIT
}

struct event { struct id *device; u64 type, data; u32 gpu_instance, compute_instance; };
int nvmlEventSetCreate(void **set) { BEGIN status = entry(__func__); static int only; *set = &only; END }
int nvmlEventSetFree(void *set) { (void)set; return OK; }

int nvmlDeviceRegisterEvents(struct id *device, u64 types, void *set) {
    (void)set;
    BEGIN_UNIT
    if (types != 8) status = NOT_SUPPORTED; /* XidCriticalError */
    else told[device - ids] = (u64)unit->xids;
    END_UNIT
}

static int next_event(struct event *into) {
    int status = entry("nvmlEventSetWait");
    for (int i = 0; !status && i < now.units; i++) {
        struct id *device = handle_of(now.unit[i].uuid);
        u64 *seen = &told[device - ids];
        if (*seen < (u64)now.unit[i].xids) {
            *into = (struct event){device, 8, now.unit[i].xid[(*seen)++], ~0u, ~0u};
            return OK;
        }
    }
    return status ? status : TIMEOUT;
}

int nvmlEventSetWait_v2(void *set, struct event *into, u32 timeout_ms) {
    (void)set;
    for (u32 waited = 0;; waited += 10) {
        pthread_mutex_lock(&lock);
        int status = next_event(into);
        pthread_mutex_unlock(&lock);
        if (status != TIMEOUT || waited >= timeout_ms) return status;
        nanosleep(&(struct timespec){0, 10000000}, NULL);
    }
}
