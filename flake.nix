{
  description = "NVIDIA GPUs in containers through CDI specs";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs =
    { self, nixpkgs }:
    let
      forSystems = nixpkgs.lib.genAttrs [
        "x86_64-linux"
        "aarch64-linux"
      ];
    in
    {
      packages = forSystems (system: {
        default = nixpkgs.legacyPackages.${system}.callPackage ./packaging/nix/package.nix {
          version = self.shortRev or "devel";
        };
      });

      nixosModules.default =
        { pkgs, lib, ... }:
        {
          imports = [ ./packaging/nix/module.nix ];
          services.cdigen.package = lib.mkDefault self.packages.${pkgs.stdenv.hostPlatform.system}.default;
        };
    };
}
