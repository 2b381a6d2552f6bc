/*
 * Prints the BPF program that libseccomp makes of a profile, for the test that compares verdicts.
 *
 * Reads lines from standard input:
 *   resolve NAME                     answered by one line: the number on x86_64, x32, x86, aarch64, arm
 *   native ARCH | arch ARCH          the tokens of seccomp.h, decimal; native first
 *   default ACTION                   a SCMP_ACT_* value, decimal
 *   rule ACTION NAME COUNT {INDEX OPERATOR VALUE SECOND}
 *   end                              answered by the number of instructions, then one line "code jt jf k" for each;
 *                                    or by "error MESSAGE"
 */
#include <errno.h>
#include <inttypes.h>
#include <linux/filter.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const uint32_t columns[] = { SCMP_ARCH_X86_64, SCMP_ARCH_X32, SCMP_ARCH_X86, SCMP_ARCH_AARCH64, SCMP_ARCH_ARM };

static void resolve(void)
{
	char name[64];
	if (scanf("%63s", name) != 1)
		exit(2);
	for (size_t i = 0; i < sizeof(columns) / sizeof(columns[0]); i++)
		printf("%d ", seccomp_syscall_resolve_name_arch(columns[i], name));
	printf("\n");
}

static int add_rule(scmp_filter_ctx context)
{
	uint32_t action;
	char name[64];
	unsigned int count;
	struct scmp_arg_cmp conditions[6];

	if (scanf("%" SCNu32 " %63s %u", &action, name, &count) != 3 || count > 6)
		exit(2);
	for (unsigned int i = 0; i < count; i++) {
		unsigned int index, operator;
		uint64_t value, second;
		if (scanf("%u %u %" SCNu64 " %" SCNu64, &index, &operator, &value, &second) != 4)
			exit(2);
		conditions[i] = (struct scmp_arg_cmp){ index, operator, value, second };
	}
	return seccomp_rule_add_array(context, action, seccomp_syscall_resolve_name(name), count, conditions);
}

static void export(scmp_filter_ctx context)
{
	static struct sock_filter program[65536];
	FILE *file = tmpfile();

	if (!file || seccomp_export_bpf(context, fileno(file)) < 0) {
		printf("error export\n");
		return;
	}
	rewind(file);
	size_t length = fread(program, sizeof(program[0]), 65536, file);
	fclose(file);
	printf("%zu\n", length);
	for (size_t i = 0; i < length; i++)
		printf("%u %u %u %u\n", program[i].code, program[i].jt, program[i].jf, program[i].k);
}

int main(void)
{
	char word[16];
	uint32_t value, native = 0;
	int problem = 0;
	scmp_filter_ctx context = NULL;

	while (scanf("%15s", word) == 1) {
		if (!strcmp(word, "resolve")) {
			resolve();
		} else if (!strcmp(word, "native")) {
			if (scanf("%" SCNu32, &native) != 1)
				exit(2);
		} else if (!strcmp(word, "default")) {
			if (scanf("%" SCNu32, &value) != 1)
				exit(2);
			problem = 0;
			context = seccomp_init(value);
			if (!context)
				exit(3);
			if (native != seccomp_arch_native()) {
				seccomp_arch_add(context, native);
				seccomp_arch_remove(context, seccomp_arch_native());
			}
		} else if (!strcmp(word, "arch")) {
			if (scanf("%" SCNu32, &value) != 1)
				exit(2);
			int result = seccomp_arch_add(context, value);
			if (result && result != -EEXIST)
				problem = result;
		} else if (!strcmp(word, "rule")) {
			int result = add_rule(context);
			if (result)
				problem = result;
		} else if (!strcmp(word, "end")) {
			if (problem)
				printf("error %s\n", strerror(-problem));
			else
				export(context);
			seccomp_release(context);
			fflush(stdout);
		} else {
			exit(2);
		}
		fflush(stdout);
	}
	return 0;
}
