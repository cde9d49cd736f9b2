/*
 * The limit that a backup can come to on this machine: its primitives and nothing else, on all
 * cores.  Whoever is as fast as this has no work left to save but in the primitives.
 *
 *   limit backup DISK DIR [LEVEL [lib]]
 *           read windows, skip holes and zeros, BLAKE2b, zstd (level: as Locum's),
 *           XChaCha20-Poly1305, append to files of 64 MiB, make them durable; lib: as the
 *           libraries have them, which is one hash at a time (else as many at once as Locum does)
 *   limit verify DIR
 *           read, open, decompress, hash and compare
 *   limit restore DIR FILE
 *           that, and write what is not zero
 *
 * There is no catalog, no look whether a window is known, no checksum, no way back after a crash:
 * an array says where each window lies.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include "store/base/bytes.h"
#include "store/base/workers.h"
#include "store/idhash.h"
#include "store/seal.h"

enum {
	WINDOW = 65536,
	PIECE = 8 * WINDOW,  /* read at once */
	BUFFER = 1 << 20,    /* written at once */
	FILE_MAX = 64 << 20, /* of a file that is appended to */
	WRITE_BACK = 2 << 20,
	FILES = 16384,
	THREADS_MAX = 64,
	NONCE = crypto_aead_xchacha20poly1305_ietf_NPUBBYTES,
	TAG = crypto_aead_xchacha20poly1305_ietf_ABYTES,
	SEALED_MAX = NONCE + WINDOW + TAG,
};

struct place { /* of a window; n 0: zeros */
	uint64_t off;
	uint32_t file, n; /* n - NONCE - TAG = WINDOW: not compressed */
	uint8_t id[IDHASH_SIZE];
};

struct head { /* of the array's file */
	uint64_t size, windows;
};

static const uint8_t key[32] = {1}, id_key[32] = {2};
static struct head head;
static struct place *places;
static const char *dir;
static int level = SEAL_LEVEL;
static bool by_library; /* hash with libsodium */
static int disk = -1, out = -1, files[FILES];
static atomic_uint_fast64_t next_piece;
static uint64_t pieces;

/* What is appended to. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint32_t file;
static uint64_t file_size;

struct thread {
	pthread_t id;
	ZSTD_CCtx *c;
	ZSTD_DCtx *d;
	uint8_t read[PIECE], packed[SEALED_MAX], buffer[BUFFER];
	size_t buffered;
	uint64_t waiting[BUFFER / NONCE]; /* windows in the buffer */
	size_t nwaiting;
};

static _Noreturn void
die(const char *what)
{
	(void)fprintf(stderr, "limit: %s: %s\n", what, strerrordesc_np(errno));
	exit(1);
}

static void
check(bool ok, const char *what)
{
	if (!ok)
		die(what);
}

static int
open_file(const char *name, int flags)
{
	char path[4096];
	int fd;

	(void)snprintf(path, sizeof path, "%s/%s", dir, name);
	fd = open(path, flags | O_CLOEXEC, 0600);
	check(fd >= 0, path);
	return fd;
}

static int
open_numbered(uint32_t i, int flags)
{
	char name[32];

	(void)snprintf(name, sizeof name, "%08x", i);
	return open_file(name, flags);
}

/* ---- backup ---- */

static void
flush_buffer(struct thread *t)
{
	uint64_t at;
	uint32_t no;
	size_t i;

	if (t->buffered == 0)
		return;
	check(pthread_mutex_lock(&lock) == 0, "lock");
	if (file_size + t->buffered > FILE_MAX) {
		file++;
		file_size = 0;
	}
	check(file < FILES, "so many files");
	if (file_size == 0)
		files[file] = open_numbered(file, O_RDWR | O_CREAT | O_EXCL);
	at = file_size;
	no = file;
	file_size += t->buffered;
	check(pthread_mutex_unlock(&lock) == 0, "unlock");
	check(pwrite(files[no], t->buffer, t->buffered, (off_t)at) == (ssize_t)t->buffered,
	      "write");
	(void)sync_file_range(files[no], (off_t)at, (off_t)t->buffered, SYNC_FILE_RANGE_WRITE);
	for (i = 0; i < t->nwaiting; i++) {
		places[t->waiting[i]].file = no;
		places[t->waiting[i]].off += at;
	}
	t->buffered = t->nwaiting = 0;
}

static void
seal(struct thread *t, uint64_t w, const uint8_t *plain)
{
	struct place *p = &places[w];
	uint8_t *nonce;
	const uint8_t *body = t->packed;
	unsigned long long made;
	/* As locum: compressed only where that saves 3%. */
	size_t n = ZSTD_compress2(t->c, t->packed, WINDOW - WINDOW * 3 / 100 - 1, plain, WINDOW);

	if (ZSTD_isError(n)) {
		body = plain;
		n = WINDOW;
	}
	if (t->buffered + NONCE + n + TAG > BUFFER)
		flush_buffer(t);
	nonce = t->buffer + t->buffered;
	randombytes_buf(nonce, NONCE);
	(void)crypto_aead_xchacha20poly1305_ietf_encrypt(nonce + NONCE, &made, body, n, p->id,
	                                                 sizeof p->id, NULL, nonce, key);
	p->off = t->buffered;
	p->n = (uint32_t)(NONCE + made);
	t->waiting[t->nwaiting++] = w;
	t->buffered += p->n;
}

static void
hash(const uint8_t *const *in, size_t n, uint8_t (*ids)[IDHASH_SIZE])
{
	unsigned lanes = by_library ? 0 : idhash_lanes();
	size_t i = 0;

	for (; lanes == 8 && n - i >= 8; i += 8)
		idhash_eight(id_key, in + i, WINDOW, ids + i);
	for (; lanes >= 4 && n - i >= 4; i += 4)
		idhash_four(id_key, in + i, WINDOW, ids + i);
	for (; i < n; i++)
		(void)crypto_generichash(ids[i], IDHASH_SIZE, in[i], WINDOW, id_key, sizeof id_key);
}

static void
back_up_piece(struct thread *t, uint64_t piece)
{
	uint64_t at = piece * PIECE, left = head.size - at;
	size_t n = left < PIECE ? (size_t)left : PIECE, i, k = 0;
	const uint8_t *some[IDHASH_MAX];
	uint8_t ids[IDHASH_MAX][IDHASH_SIZE];
	off_t data = lseek(disk, (off_t)at, SEEK_DATA);

	if ((data == -1 && errno == ENXIO) || data >= (off_t)(at + n))
		return;
	memset(t->read, 0, PIECE);
	check(pread(disk, t->read, n, (off_t)at) == (ssize_t)n, "read");
	for (i = 0; i < PIECE / WINDOW; i++) {
		if (!lc_is_zero(t->read + i * WINDOW, WINDOW))
			some[k++] = t->read + i * WINDOW;
		if (k == IDHASH_MAX || (i + 1 == PIECE / WINDOW && k > 0)) {
			size_t j;

			hash(some, k, ids);
			for (j = 0; j < k; j++) {
				uint64_t w = piece * (PIECE / WINDOW) +
				             (uint64_t)(some[j] - t->read) / WINDOW;

				memcpy(places[w].id, ids[j], IDHASH_SIZE);
				seal(t, w, some[j]);
			}
			k = 0;
		}
	}
}

/* ---- the way back ---- */

static void
open_window(struct thread *t, const struct place *p, uint8_t *plain)
{
	unsigned long long made;
	bool whole = p->n == SEALED_MAX;
	uint8_t *body = t->buffer;

	check(pread(files[p->file], t->packed, p->n, (off_t)p->off) == (ssize_t)p->n, "read");
	errno = EBADMSG;
	check(crypto_aead_xchacha20poly1305_ietf_decrypt(whole ? plain : body, &made, NULL,
	                                                 t->packed + NONCE, p->n - NONCE, p->id,
	                                                 sizeof p->id, t->packed, key) == 0,
	      "open");
	check(whole || ZSTD_decompressDCtx(t->d, plain, WINDOW, body, (size_t)made) == WINDOW,
	      "decompress");
}

static void
bring_back_piece(struct thread *t, uint64_t piece)
{
	const uint8_t *some[IDHASH_MAX] = {0};
	uint8_t ids[IDHASH_MAX][IDHASH_SIZE];
	uint64_t w = piece * IDHASH_MAX, first = w, order[IDHASH_MAX];
	size_t k = 0, i;

	for (; w < head.windows && w < first + IDHASH_MAX; w++) {
		if (places[w].n == 0)
			continue;
		some[k] = t->read + k * WINDOW;
		open_window(t, &places[w], t->read + k * WINDOW);
		order[k++] = w;
	}
	hash(some, k, ids);
	for (i = 0; i < k; i++) {
		uint64_t off = order[i] * WINDOW, left = head.size - off;
		size_t n = left < WINDOW ? (size_t)left : WINDOW;

		errno = EBADMSG;
		check(memcmp(ids[i], places[order[i]].id, IDHASH_SIZE) == 0, "compare");
		check(out == -1 || pwrite(out, some[i], n, (off_t)off) == (ssize_t)n, "write");
	}
}

/* ---- both ---- */

static void *
run(void *arg)
{
	struct thread *t = arg;
	uint64_t piece;

	while ((piece = atomic_fetch_add(&next_piece, 1)) < pieces) {
		if (disk != -1)
			back_up_piece(t, piece);
		else
			bring_back_piece(t, piece);
	}
	flush_buffer(t);
	return NULL;
}

static void
run_all(void)
{
	static struct thread *threads[THREADS_MAX];
	unsigned n = workers_cores(), i;

	n = n < THREADS_MAX ? n : THREADS_MAX;
	for (i = 0; i < n; i++) {
		struct thread *t = calloc(1, sizeof *t);

		check(t != NULL && (t->c = ZSTD_createCCtx()) != NULL &&
		          (t->d = ZSTD_createDCtx()) != NULL,
		      "memory");
		(void)ZSTD_CCtx_setParameter(t->c, ZSTD_c_compressionLevel, level);
		if (level == SEAL_LEVEL)
			(void)ZSTD_CCtx_setParameter(t->c, ZSTD_c_hashLog, SEAL_TABLE_LOG);
		(void)ZSTD_CCtx_setParameter(t->c, ZSTD_c_contentSizeFlag, 0);
		threads[i] = t;
		check(pthread_create(&t->id, NULL, run, t) == 0, "thread");
	}
	for (i = 0; i < n; i++) {
		check(pthread_join(threads[i]->id, NULL) == 0, "join");
		(void)ZSTD_freeCCtx(threads[i]->c);
		(void)ZSTD_freeDCtx(threads[i]->d);
		free(threads[i]);
	}
}

static void
back_up(const char *path)
{
	struct stat st;
	uint32_t i;
	int map;

	disk = open(path, O_RDONLY | O_CLOEXEC);
	check(disk >= 0 && fstat(disk, &st) == 0, path);
	head.size = (uint64_t)st.st_size;
	head.windows = (head.size + WINDOW - 1) / WINDOW;
	pieces = (head.size + PIECE - 1) / PIECE;
	places = calloc(head.windows + 1, sizeof *places);
	check(places != NULL, "memory");
	run_all();
	for (i = 0; i <= file && file_size > 0; i++)
		check(fdatasync(files[i]) == 0, "sync");
	map = open_file("map", O_WRONLY | O_CREAT | O_TRUNC);
	check(write(map, &head, sizeof head) == sizeof head &&
	          write(map, places, head.windows * sizeof *places) ==
	              (ssize_t)(head.windows * sizeof *places) &&
	          fsync(map) == 0,
	      "map");
}

static void
bring_back(const char *to)
{
	int map = open_file("map", O_RDONLY);
	uint32_t last = 0;
	uint64_t w;

	check(read(map, &head, sizeof head) == sizeof head, "map");
	places = calloc(head.windows + 1, sizeof *places);
	check(places != NULL && read(map, places, head.windows * sizeof *places) ==
	                            (ssize_t)(head.windows * sizeof *places),
	      "map");
	for (w = 0; w < head.windows; w++) {
		check(places[w].file < FILES && places[w].n <= SEALED_MAX, "map");
		while (places[w].n > 0 && last <= places[w].file) {
			files[last] = open_numbered(last, O_RDONLY);
			last++;
		}
	}
	pieces = (head.windows + IDHASH_MAX - 1) / IDHASH_MAX;
	if (to != NULL) {
		out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
		check(out >= 0 && ftruncate(out, (off_t)head.size) == 0, to);
	}
	run_all();
	check(out == -1 || fsync(out) == 0, "sync");
}

int
main(int argc, char **argv)
{
	check(sodium_init() >= 0, "libsodium");
	if (argc >= 4 && argc <= 6 && strcmp(argv[1], "backup") == 0) {
		dir = argv[3];
		level = argc >= 5 ? atoi(argv[4]) : level;
		by_library = argc == 6 && strcmp(argv[5], "lib") == 0;
		back_up(argv[2]);
	} else if (argc == 3 && strcmp(argv[1], "verify") == 0) {
		dir = argv[2];
		bring_back(NULL);
	} else if (argc == 4 && strcmp(argv[1], "restore") == 0) {
		dir = argv[2];
		bring_back(argv[3]);
	} else {
		(void)fprintf(stderr,
		              "limit: backup DISK DIR [LEVEL [lib]], verify DIR or restore DIR "
		              "FILE\n");
		return 2;
	}
	return 0;
}
