# nix-build packaging/nix
# A starting point: parsed, never built.
{ pkgs ? import <nixpkgs> { } }:

pkgs.rustPlatform.buildRustPackage {
  pname = "ldwrap";
  version = "0.1.0";

  src = pkgs.lib.cleanSource ../..;
  cargoLock.lockFile = ../../Cargo.lock;
  cargoBuildFlags = [ "-p" "ldwrap-shim" "-p" "ldwrap" ];
  # What tests/ has needs clang and lld where Debian has them.
  cargoTestFlags = [ "-p" "ldwrap-shim" "-p" "ldwrap" "--lib" ];

  nativeBuildInputs = [ pkgs.installShellFiles ];
  # The shim goes where ldwrap looks for it.
  postInstall = ''
    mkdir -p $out/lib/ldwrap
    mv $out/bin/ldwrap-shim $out/lib/ldwrap/ld.lld
    $out/bin/ldwrap document man > ldwrap.1
    installManPage ldwrap.1
    installShellCompletion --cmd ldwrap \
      --bash <($out/bin/ldwrap document bash) \
      --fish <($out/bin/ldwrap document fish) \
      --zsh <($out/bin/ldwrap document zsh)
  '';

  meta = {
    description = "Drop-in ld.lld with a cache for ThinLTO links";
    license = with pkgs.lib.licenses; [ asl20 mit ];
    mainProgram = "ldwrap";
    platforms = [ "x86_64-linux" "aarch64-linux" ];
  };
}
