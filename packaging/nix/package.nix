# Builds as everybody does: with make.
{
  lib,
  buildGoModule,
  version,
}:

buildGoModule {
  pname = "cdigen";
  inherit version;
  src = lib.cleanSource ../..;
  # Of what `go mod vendor` writes; a test compares it.
  vendorHash = "sha256-An6A5qHnsoOIB3d6oOOZ6fBzfMi2Z0HNSRdhMHAL59M=";

  buildPhase = ''
    runHook preBuild
    make build VERSION=${version}
    runHook postBuild
  '';
  # The settings belong to the system; here they are examples.
  installPhase = ''
    runHook preInstall
    make install-files PREFIX=$out settingsdir=$out/share/doc/cdigen
    runHook postInstall
  '';
  # The tests want root, container engines and Debian packages.
  doCheck = false;

  meta = {
    description = "NVIDIA GPUs in containers through CDI specs";
    homepage = "https://github.com/cdigen/cdigen";
    license = lib.licenses.asl20;
    mainProgram = "cdigen";
    platforms = [
      "x86_64-linux"
      "aarch64-linux"
    ];
  };
}
