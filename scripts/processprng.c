/*
 * Go on Windows takes its random numbers from ProcessPrng in
 * bcryptprimitives.dll and does not start without it. Wine 8 has no such DLL;
 * this one gives ProcessPrng by way of an older function that Wine has.
 */
#include <windows.h>

BOOLEAN NTAPI SystemFunction036(PVOID, ULONG); /* RtlGenRandom, in advapi32 */

__declspec(dllexport) BOOL WINAPI ProcessPrng(BYTE *to, SIZE_T n)
{
	return SystemFunction036(to, (ULONG)n);
}
