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
 *   limit send DIR PORT
 *           read the files of a backup, seal frames of 64 KiB with ChaCha20-Poly1305, to a TCP port
 *           of this machine, and wait until the other side says that all of it is durable
 *   limit receive DIR
 *           listen, print the port, open the frames of one sender, append them to files of 64 MiB,
 *           make them durable, say so, and stay until killed
 *
 * There is no catalog, no look whether a window is known, no checksum, no way back after a crash:
 * an array says where each window lies.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
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
	FILES = 16384,
	THREADS_MAX = 64,
	NONCE = crypto_aead_xchacha20poly1305_ietf_NPUBBYTES,
	TAG = crypto_aead_xchacha20poly1305_ietf_ABYTES,
	SEALED_MAX = NONCE + WINDOW + TAG,
	FRAME_TAG = crypto_aead_chacha20poly1305_ietf_ABYTES,
	FRAME = WINDOW -
	        FRAME_TAG, /* bytes in one; its length on the wire is a number of 4 bytes */
	FRAMES = 4,        /* sent at once */
	SOCKET_BUFFER = FRAMES * WINDOW,
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

/* ---- to another place ---- */

static void
write_all(int fd, const uint8_t *p, size_t n)
{
	size_t off;
	ssize_t k = 0;

	for (off = 0; off < n; off += (size_t)k) {
		k = write(fd, p + off, n - off);
		check(k > 0, "write");
	}
}

static void
count_up(uint8_t nonce[crypto_aead_chacha20poly1305_ietf_NPUBBYTES])
{
	lc_put64(nonce + 4, lc_get64(nonce + 4) + 1);
}

static void
send_file(int from, int to, uint8_t nonce[crypto_aead_chacha20poly1305_ietf_NPUBBYTES])
{
	static uint8_t plain[FRAMES * FRAME], wire[FRAMES * (4 + WINDOW)];
	size_t off, k, at;
	ssize_t n;

	while ((n = read(from, plain, sizeof plain)) > 0) {
		for (off = at = 0; off < (size_t)n; off += k) {
			k = (size_t)n - off < FRAME ? (size_t)n - off : FRAME;
			lc_put32(wire + at, (uint32_t)(k + FRAME_TAG));
			(void)crypto_aead_chacha20poly1305_ietf_encrypt(
			    wire + at + 4, NULL, plain + off, k, NULL, 0, NULL, nonce, key);
			count_up(nonce);
			at += 4 + k + FRAME_TAG;
		}
		write_all(to, wire, at);
	}
	check(n == 0, "read");
}

static void
send_all(const char *port)
{
	struct sockaddr_in to = {.sin_family = AF_INET,
	                         .sin_port = htons((uint16_t)atoi(port)),
	                         .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	uint8_t nonce[crypto_aead_chacha20poly1305_ietf_NPUBBYTES] = {0}, done;
	int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), from;
	char name[4096];
	uint32_t i;

	check(s >= 0 && connect(s, (struct sockaddr *)&to, sizeof to) == 0, "connect");
	for (i = 0; i < FILES; i++) {
		(void)snprintf(name, sizeof name, "%s/%08x", dir, i);
		if (access(name, F_OK) != 0)
			break;
		from = open_numbered(i, O_RDONLY);
		send_file(from, s, nonce);
		(void)close(from);
	}
	check(shutdown(s, SHUT_WR) == 0 && read(s, &done, 1) == 1, "the other side ended early");
	(void)close(s);
}

/* Append what came, and begin to write it back, as a backup does. */
static void
keep(const uint8_t *p, size_t n)
{
	if (file_size + n > FILE_MAX) {
		file++;
		file_size = 0;
	}
	check(file < FILES, "so many files");
	if (file_size == 0)
		files[file] = open_numbered(file, O_RDWR | O_CREAT | O_EXCL);
	write_all(files[file], p, n);
	(void)sync_file_range(files[file], (off_t)file_size, (off_t)n, SYNC_FILE_RANGE_WRITE);
	file_size += n;
}

/* Open the frames that are whole, to plain; bytes that they took. */
static size_t
open_frames(const uint8_t *wire, size_t have, uint8_t *plain, size_t *nplain,
            uint8_t nonce[crypto_aead_chacha20poly1305_ietf_NPUBBYTES])
{
	size_t at = 0, k;

	*nplain = 0;
	while (have - at >= 4 && (k = lc_get32(wire + at)) <= have - at - 4) {
		errno = EBADMSG;
		check(k >= FRAME_TAG && crypto_aead_chacha20poly1305_ietf_decrypt(
					    plain + *nplain, NULL, NULL, wire + at + 4, k, NULL, 0,
					    nonce, key) == 0,
		      "open");
		count_up(nonce);
		*nplain += k - FRAME_TAG;
		at += 4 + k;
	}
	return at;
}

static void
receive_from(int s)
{
	static uint8_t wire[FRAMES * (4 + WINDOW)], plain[BUFFER + sizeof wire];
	uint8_t nonce[crypto_aead_chacha20poly1305_ietf_NPUBBYTES] = {0};
	size_t have = 0, waiting = 0, took, n;
	ssize_t k;
	uint32_t i;

	while ((k = read(s, wire + have, sizeof wire - have)) > 0) {
		have += (size_t)k;
		took = open_frames(wire, have, plain + waiting, &n, nonce);
		memmove(wire, wire + took, have - took);
		have -= took;
		waiting += n;
		if (waiting >= BUFFER) {
			keep(plain, waiting);
			waiting = 0;
		}
	}
	check(k == 0 && have == 0, "cut in the middle of a frame");
	keep(plain, waiting);
	for (i = 0; i <= file; i++)
		check(fdatasync(files[i]) == 0, "sync");
	write_all(s, wire, 1);
}

static void
receive_all(void)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), s, wide = SOCKET_BUFFER;
	socklen_t n = sizeof at;

	check(l >= 0 && setsockopt(l, SOL_SOCKET, SO_RCVBUF, &wide, sizeof wide) == 0 &&
	          bind(l, (struct sockaddr *)&at, n) == 0 && listen(l, 1) == 0 &&
	          getsockname(l, (struct sockaddr *)&at, &n) == 0,
	      "listen");
	(void)printf("limit listens on port %u;\n", ntohs(at.sin_port));
	(void)fflush(stdout);
	s = accept(l, NULL, NULL);
	check(s >= 0, "accept");
	receive_from(s);
	for (;;)
		(void)pause();
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
	} else if (argc == 4 && strcmp(argv[1], "send") == 0) {
		dir = argv[2];
		send_all(argv[3]);
	} else if (argc == 3 && strcmp(argv[1], "receive") == 0) {
		dir = argv[2];
		receive_all();
	} else {
		(void)fprintf(stderr,
		              "limit: backup DISK DIR [LEVEL [lib]], verify DIR, restore DIR FILE, "
		              "send DIR PORT or receive DIR\n");
		return 2;
	}
	return 0;
}
